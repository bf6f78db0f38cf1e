"""The engine thread over a made-up batch: what happens when loading, steps or the thread fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from engines.base import EngineInfo, GenerationRequest, Prompt
from engines.errors import EngineError, ModelLoadError
from engines.mlx.memory import KvCost
from engines.mlx.sequence import Drawn, Sequence
from engines.mlx.worker import Worker
from engines.stream import ChunkStream
from engines.text.output import TextAssembler


class FakeBatch:
    """Says "a" for every sequence, and raises in the steps that ``fails`` says."""

    def __init__(self, fails: Callable[[int], bool] = lambda step: False, budget: int = 10**9) -> None:
        self.info = EngineInfo("mlx", "fake", 1000, 4, ("cpu",))
        self.vocabulary: Any = SimpleNamespace(piece=lambda token: b"a")
        self.cost = KvCost(1)
        self.budget = budget
        self.inside: dict[int, Sequence] = {}
        self.most_inside = self.resets = 0
        self.is_closed = False
        self.closed_by: threading.Thread | None = None
        self._fails = fails
        self._uids = self._steps = 0

    def insert(self, sequence: Sequence) -> None:
        sequence.uid = self._uids
        sequence.cached = 0
        self.inside[self._uids] = sequence
        self.most_inside = max(self.most_inside, len(self.inside))
        self._uids += 1

    def step(self, *, prefilling: int, decoding: int, spare_bytes: int) -> list[Drawn]:
        assert prefilling + decoding == len(self.inside)
        self._steps += 1
        if self._fails(self._steps):
            raise RuntimeError("no memory")
        return [Drawn(uid, 7, False, None) for uid in self.inside]

    def remove(self, sequence: Sequence, spare_bytes: int) -> None:
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
async def running(batch: FakeBatch) -> AsyncIterator[Worker]:
    worker = Worker(lambda check: batch, asyncio.get_running_loop())
    worker.start()
    await worker.loaded
    try:
        yield worker
    finally:
        worker.stop(EngineError("stopped"))
        assert worker.join(5)
        assert batch.is_closed


def submit(worker: Worker, limit: int = 3, prompt: int = 5) -> ChunkStream:
    stream = ChunkStream(lambda: worker.abort(sequence))
    sequence = Sequence(GenerationRequest("r", Prompt((1,) * prompt)), stream, TextAssembler(), limit)
    worker.submit(sequence)
    return stream


async def text(stream: ChunkStream) -> str:
    return "".join([chunk.text async for chunk in stream])


async def test_all_get_their_answer() -> None:
    async with running(FakeBatch()) as worker:
        assert await asyncio.gather(*(text(submit(worker, limit=n)) for n in range(1, 9))) == [
            "a" * n for n in range(1, 9)
        ]
        assert worker.stats.completion_tokens == 36
        assert worker.stats.prompt_tokens == 40


async def test_a_tiny_budget_is_shared_in_turns() -> None:
    batch = FakeBatch(budget=2 * (5 + 256 + 256))
    async with running(batch) as worker:
        answers = await asyncio.gather(*(text(submit(worker, limit=400)) for _ in range(5)))
        assert answers == ["a" * 400] * 5
        assert batch.most_inside == 2
        assert worker.stats.preemptions > 0


async def test_a_failed_step_fails_its_sequences_and_no_others() -> None:
    batch = FakeBatch(fails=lambda step: step == 2)
    async with running(batch) as worker:
        with pytest.raises(EngineError, match="no memory"):
            await text(submit(worker, limit=10))
        assert await text(submit(worker)) == "aaa"
        assert (batch.resets, worker.is_alive, worker.failure) == (1, True, None)


async def test_an_engine_that_fails_again_and_again_gives_up() -> None:
    async with running(FakeBatch(fails=lambda step: True)) as worker:
        for _ in range(3):
            with pytest.raises(EngineError):
                await text(submit(worker))
        assert worker.join(5)
        assert worker.failure is not None


async def test_stopping_fails_what_runs() -> None:
    async with running(FakeBatch()) as worker:
        stream = submit(worker, limit=10**9)
        await stream.__anext__()
        worker.stop(EngineError("unloaded"))
        with pytest.raises(EngineError, match="unloaded"):
            await text(stream)


async def test_a_closed_stream_leaves_the_batch() -> None:
    batch = FakeBatch()
    async with running(batch) as worker:
        stream = submit(worker, limit=10**9)
        await stream.__anext__()
        stream.close()
        assert await text(submit(worker)) == "aaa"
        assert not batch.inside
        assert not worker.is_busy


async def test_load_errors_are_the_loaders() -> None:
    def fail(error: Exception) -> Worker:
        def open_batch(check: Callable[[float], None]) -> FakeBatch:
            raise error

        worker = Worker(open_batch, asyncio.get_running_loop())
        worker.start()
        return worker

    with pytest.raises(ModelLoadError, match="no folder"):
        await fail(ModelLoadError("no folder")).loaded
    worker = fail(ValueError("odd"))
    with pytest.raises(ModelLoadError, match="odd"):
        await worker.loaded
    assert worker.join(5)


async def test_a_load_that_nobody_wants_is_given_up() -> None:
    entered, proceed = threading.Event(), threading.Event()
    batch = FakeBatch()

    def open_batch(check: Callable[[float], None]) -> FakeBatch:
        entered.set()
        proceed.wait(5)
        check(0.5)
        return batch

    worker = Worker(open_batch, asyncio.get_running_loop())
    worker.start()
    await asyncio.to_thread(entered.wait, 5)
    worker.stop(EngineError("given up"))
    proceed.set()
    assert await asyncio.to_thread(worker.join, 5)
    assert not worker.loaded.done()


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
