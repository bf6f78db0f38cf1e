"""The order in which sequences are admitted is the same in every scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engines.base import GenerationRequest, Prompt, Sampling
from engines.batching.sequence import Sequence
from engines.batching.waiting import WaitingQueue
from engines.llamacpp.kv_cache import PooledKvCache
from engines.llamacpp.prefix_cache import LlamaPrefixCache
from engines.llamacpp.sampler import Sampler
from engines.llamacpp.scheduler import LlamaScheduler
from engines.llamacpp.sequence import LlamaSequence
from engines.mlx.memory import KvCost
from engines.mlx.scheduler import MlxScheduler
from engines.mlx.sequence import MlxSequence
from engines.stream import ChunkStream
from engines.text.answers.output import Output
from support.output import text_output


def parts(generated: tuple[int, ...]) -> tuple[GenerationRequest, ChunkStream, Output, int]:
    request = GenerationRequest("r", Prompt((1, 2, 3)), Sampling(temperature=0), generated=generated)
    return request, ChunkStream(lambda: None), text_output(), 10


class NoMemory:
    def copy(self, source: int, target: int, length: int) -> None: ...

    def truncate(self, slot: int, length: int) -> None: ...


class OneByOne:
    """A scheduler with room for one sequence at a time."""

    def __init__(self, scheduler: Any, make: Callable[..., Sequence], admit: Callable[[], Any]) -> None:
        self._scheduler = scheduler
        self._make = make
        self._admit = admit

    def submit(self, generated: tuple[int, ...] = ()) -> Sequence:
        sequence = self._make(*parts(generated))
        self._scheduler.submit(sequence)
        return sequence

    def order(self) -> list[Sequence]:
        """All that wait, as they get their turn."""
        admitted = []
        while self._scheduler.has_work:
            self._admit()
            (sequence,) = self._scheduler.running
            admitted.append(sequence)
            self._scheduler.remove(sequence)
        return admitted


def llama_cpp() -> OneByOne:
    kv = PooledKvCache(NoMemory(), cells=1000, slots=4)
    scheduler = LlamaScheduler(kv, LlamaPrefixCache(kv), max_running=1, batch_size=512)

    def make(*parts: Any) -> LlamaSequence:
        return LlamaSequence(*parts, Sampler(parts[0], np.array([0], dtype=np.int32), 50_000))

    return OneByOne(scheduler, make, lambda: scheduler.schedule(512))


def mlx() -> OneByOne:
    scheduler = MlxScheduler(KvCost(1), budget=10**9, max_running=1)
    return OneByOne(scheduler, MlxSequence, scheduler.admit)


@pytest.mark.parametrize("make", [llama_cpp, mlx])
def test_answers_that_go_on_from_another_backend_go_first(make: Callable[[], OneByOne]) -> None:
    queue = make()
    first, second = queue.submit(), queue.submit()
    third, fourth = queue.submit(generated=(7,)), queue.submit(generated=(7, 8))
    assert queue.order() == [third, fourth, first, second]


def test_a_preempted_sequence_goes_before_all_others() -> None:
    queue: WaitingQueue[Sequence] = WaitingQueue()
    fresh, resumed, preempted, later = (Sequence(*parts(g)) for g in ((), (7,), (), (7,)))
    queue.add(fresh)
    queue.add(resumed)
    queue.put_back(preempted)
    queue.add(later)
    assert list(queue) == [preempted, resumed, later, fresh]
    assert queue.first is preempted
    queue.remove(preempted)
    assert (len(queue), fresh in queue, preempted in queue) == (3, True, False)
