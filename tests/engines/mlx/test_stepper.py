"""The engine thread over a made-up batch: preemption, and what happens when steps fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from engines.base import EngineInfo, GenerationRequest, Prompt
from engines.batching.stepper import Drawn, Failed
from engines.batching.thread import EngineThread
from engines.errors import EngineError
from engines.mlx import threads
from engines.mlx.memory import KvCost
from engines.mlx.sequence import MlxSequence
from engines.mlx.stepper import MlxStepper
from engines.stream import ChunkStream
from support.output import text_output


class FakeBatch:
    """Says "a" for every sequence, and raises in the steps that ``fails`` says."""

    def __init__(self, fails: Callable[[int], bool] = lambda step: False, budget: int = 10**9) -> None:
        self.info = EngineInfo("mlx", "fake", 1000, 4, ("cpu",))
        self.vocabulary: Any = SimpleNamespace(piece=lambda token: b"a", is_end=lambda token: False)
        self.cost = KvCost(1)
        self.budget = budget
        self.inside: dict[int, MlxSequence] = {}
        self.most_inside = self.resets = 0
        self.is_closed = False
        self.broken = -1  # the last token of sequences that fail
        self.held_bytes = 1000
        self.closed_by: threading.Thread | None = None
        self._fails = fails
        self._uids = self._steps = 0

    def insert(self, sequence: MlxSequence) -> None:
        sequence.uid = self._uids
        sequence.cached = 0
        self.inside[self._uids] = sequence
        self.most_inside = max(self.most_inside, len(self.inside))
        self._uids += 1

    def step(
        self, *, prefilling: int, decoding: int, spare_bytes: int
    ) -> list[Drawn[MlxSequence] | Failed[MlxSequence]]:
        assert prefilling + decoding == len(self.inside)
        self._steps += 1
        if self._fails(self._steps):
            raise RuntimeError("no memory")
        return [
            Failed(each, EngineError("its mask broke")) if each.tokens[-1] == self.broken else Drawn(each, 7)
            for each in self.inside.values()
        ]

    def remove(self, sequence: MlxSequence, spare_bytes: int) -> None:
        assert sequence.uid is not None
        del self.inside[sequence.uid]
        sequence.uid = None

    def shrink_prefixes(self, limit: int) -> None:
        pass

    def reset(self) -> None:
        self.inside.clear()
        self.resets += 1

    def close(self) -> None:
        self.is_closed = True
        self.closed_by = threading.current_thread()


@asynccontextmanager
async def running(batch: FakeBatch) -> AsyncIterator[EngineThread[MlxSequence]]:
    thread = EngineThread(lambda check: MlxStepper(batch), asyncio.get_running_loop(), threads.run)
    thread.start()
    await thread.opened
    try:
        yield thread
    finally:
        thread.stop(EngineError("stopped"))
        assert thread.join(5)
        assert batch.is_closed


def submit(thread: EngineThread[MlxSequence], limit: int = 3, prompt: int = 5) -> ChunkStream:
    stream = ChunkStream(lambda: thread.abort(sequence))
    sequence = MlxSequence(GenerationRequest("r", Prompt((1,) * prompt)), stream, text_output(), limit)
    thread.submit(sequence)
    return stream


async def text(stream: ChunkStream) -> str:
    return "".join([chunk.text async for chunk in stream])


async def test_all_get_their_answer() -> None:
    async with running(FakeBatch()) as thread:
        assert await asyncio.gather(*(text(submit(thread, limit=n)) for n in range(1, 9))) == [
            "a" * n for n in range(1, 9)
        ]
        assert thread.stats.completion_tokens == 36
        assert thread.stats.prompt_tokens == 40


async def test_what_it_holds_is_not_what_it_may_take() -> None:
    async with running(FakeBatch()) as thread:
        assert thread.stats.memory == 1000  # weights and cached prefixes
        stream = submit(thread, limit=10**6)
        await stream.__anext__()
        assert 1000 + 5 + 256 <= thread.stats.memory < 10**8  # of a budget of 10⁹
        stream.close()


async def test_a_tiny_budget_is_shared_in_turns() -> None:
    batch = FakeBatch(budget=2 * (5 + 256 + 256))
    async with running(batch) as thread:
        answers = await asyncio.gather(*(text(submit(thread, limit=400)) for _ in range(5)))
        assert answers == ["a" * 400] * 5
        assert batch.most_inside == 2
        assert thread.stats.preemptions > 0


async def test_a_failed_step_fails_its_sequences_and_no_others() -> None:
    batch = FakeBatch(fails=lambda step: step == 2)
    async with running(batch) as thread:
        with pytest.raises(EngineError, match="no memory"):
            await text(submit(thread, limit=10))
        assert await text(submit(thread)) == "aaa"
        assert (batch.resets, thread.is_alive, thread.failure) == (1, True, None)


async def test_a_sequence_that_fails_leaves_the_batch_and_the_others_go_on() -> None:
    batch = FakeBatch()
    async with running(batch) as thread:
        batch.broken = 7
        failing = submit(thread, limit=10)
        with pytest.raises(EngineError, match="its mask broke"):
            await text(failing)
        batch.broken = -1
        assert await text(submit(thread)) == "aaa"
        assert not batch.inside


async def test_an_engine_that_fails_again_and_again_gives_up() -> None:
    async with running(FakeBatch(fails=lambda step: True)) as thread:
        for _ in range(3):
            with pytest.raises(EngineError):
                await text(submit(thread))
        assert thread.join(5)
        assert thread.failure is not None


async def test_a_closed_stream_leaves_the_batch() -> None:
    batch = FakeBatch()
    async with running(batch) as thread:
        stream = submit(thread, limit=10**9)
        await stream.__anext__()
        stream.close()
        assert await text(submit(thread)) == "aaa"
        assert not batch.inside
        assert not thread.is_busy


async def test_threads_are_used_again() -> None:
    async def thread_of_one() -> threading.Thread | None:
        batch = FakeBatch()
        async with running(batch):
            pass
        return batch.closed_by

    assert await thread_of_one() is await thread_of_one()


async def test_the_batch_is_closed_by_the_thread_that_made_it() -> None:
    batch = FakeBatch()
    async with running(batch):
        pass
    assert batch.closed_by is not None
    assert batch.closed_by.name == "mlx-engine"
