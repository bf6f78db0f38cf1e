"""The engine thread over a made-up stepper: opening, delivering, stopping, stalling and dying."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from engines.base import EngineInfo, GenerationRequest, Prompt, TokenLogprob
from engines.batching.sequence import Sequence
from engines.batching.stepper import Drawn, Failed, Gauges
from engines.batching.thread import CheckWanted, EngineThread, on_new_thread
from engines.errors import EngineError, ModelLoadError
from engines.stream import ChunkStream
from engines.text.answers.assembler import Released, TextAssembler
from engines.text.answers.output import Output, TextOutput
from support.output import text_output

END = 0


class FakeStepper:
    """Draws ``draw(step)`` for every sequence; a sequence that gets an error is out of it."""

    def __init__(self, draw: Callable[[int], int | EngineError] = lambda step: 7) -> None:
        self.info = EngineInfo("fake", "fake", 1000, 4, ("cpu",))
        self.vocabulary: Any = SimpleNamespace(piece=self.piece, is_end=END.__eq__)
        self.sequences: list[Sequence] = []
        self.steps = 0
        self.closed_by: threading.Thread | None = None
        self._draw = draw

    @property
    def has_work(self) -> bool:
        return bool(self.sequences)

    def submit(self, sequence: Sequence) -> None:
        self.sequences.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        if sequence in self.sequences:
            self.sequences.remove(sequence)

    def step(self) -> list[Drawn[Sequence] | Failed[Sequence]]:
        self.steps += 1
        token = self._draw(self.steps)
        if isinstance(token, int):
            return [Drawn(sequence, token) for sequence in self.sequences]
        failed, self.sequences = self.sequences, []
        return [Failed(sequence, token) for sequence in failed]

    def gauges(self) -> Gauges:
        return Gauges(running=len(self.sequences), kv_total=99)

    def close(self) -> None:
        self.closed_by = threading.current_thread()

    @staticmethod
    def piece(token: int) -> bytes:
        return b"?abcdefgh"[token : token + 1]


def start(open_stepper: Callable[[CheckWanted], FakeStepper]) -> EngineThread[Sequence]:
    thread = EngineThread[Sequence](open_stepper, asyncio.get_running_loop(), on_new_thread("batching"))
    thread.start()
    return thread


@asynccontextmanager
async def running(stepper: FakeStepper) -> AsyncIterator[EngineThread[Sequence]]:
    thread = start(lambda check: stepper)
    await thread.opened
    try:
        yield thread
    finally:
        thread.stop(EngineError("stopped"))
        assert await asyncio.to_thread(thread.join, 5)
        assert stepper.closed_by is not None


class BrokenOutput(TextOutput):
    def push(self, token: int, logprob: TokenLogprob | None = None) -> Released:
        raise RuntimeError("planted")


def submit(
    thread: EngineThread[Sequence],
    limit: int = 3,
    stop: tuple[str, ...] = (),
    output: Output | None = None,
) -> ChunkStream:
    stream = ChunkStream(lambda: thread.abort(sequence))
    request = GenerationRequest("r", Prompt((1, 2)), stop=stop)
    sequence = Sequence(request, stream, output or text_output(FakeStepper.piece, stop), limit)
    sequence.cached = 1
    thread.submit(sequence)
    return stream


async def text(stream: ChunkStream) -> str:
    return "".join([chunk.text async for chunk in stream])


async def test_answers_end_with_the_limit_a_stop_string_or_the_end_token() -> None:
    async with running(FakeStepper(lambda step: step % 8)) as thread:
        stream = submit(thread, limit=4)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.text for chunk in chunks) == "abcd"
        assert chunks[-1].finish_reason == "length"
        assert await text(submit(thread, limit=10, stop=("g",))) == "ef"
        last = [chunk async for chunk in submit(thread, limit=10)][-1]
        assert last.finish_reason == "stop"
        assert last.usage is not None
        assert (last.usage.completion_tokens, last.usage.cached_tokens) == (1, 1)
        stats = thread.stats
        assert (stats.prompt_tokens, stats.completion_tokens, stats.cached_tokens) == (6, 8, 3)
        assert (stats.running, stats.kv_total) == (0, 99)


async def test_the_loop_is_woken_once_a_step_however_many_sequences_run() -> None:
    stepper, together = FakeStepper(), threading.Event()
    async with running(stepper) as thread:
        loop, wakes = asyncio.get_running_loop(), 0
        wake = loop.call_soon_threadsafe

        def counting(*args: Any, **options: Any) -> Any:
            nonlocal wakes
            wakes += threading.current_thread() is not threading.main_thread()
            return wake(*args, **options)

        loop.call_soon_threadsafe = counting  # type: ignore[method-assign]
        thread._inbox.put(lambda: together.wait(5) and None)
        streams = [submit(thread, limit=20) for _ in range(8)]
        together.set()
        await asyncio.gather(*map(text, streams))
        assert stepper.steps == 20
        assert wakes <= 20


async def test_a_failed_sequence_gets_its_error_and_others_go_on() -> None:
    async with running(FakeStepper(lambda step: EngineError("planted") if step == 1 else 7)) as thread:
        with pytest.raises(EngineError, match="planted"):
            await text(submit(thread))
        assert await text(submit(thread)) == "ggg"
        assert thread.is_alive


async def test_a_token_that_cannot_become_text_fails_one_sequence() -> None:
    async with running(FakeStepper()) as thread:
        broken = submit(thread, output=BrokenOutput(FakeStepper.piece, TextAssembler()))
        good = submit(thread, limit=50)
        with pytest.raises(EngineError, match="planted"):
            await text(broken)
        assert await text(good) == "g" * 50
        assert thread.is_alive


async def test_stopping_fails_what_runs() -> None:
    async with running(FakeStepper()) as thread:
        stream = submit(thread, limit=10**9)
        await stream.__anext__()
        thread.stop(EngineError("unloaded"))
        with pytest.raises(EngineError, match="unloaded"):
            await text(stream)


async def test_a_closed_stream_leaves_the_batch() -> None:
    stepper = FakeStepper()
    async with running(stepper) as thread:
        stream = submit(thread, limit=10**9)
        await stream.__anext__()
        stream.close()
        assert await text(submit(thread)) == "ggg"
        assert not stepper.sequences
        assert not thread.is_busy


async def test_a_step_that_raises_ends_the_engine_and_all_that_it_had() -> None:
    def draw(step: int) -> int:
        raise RuntimeError("planted")

    async with running(FakeStepper(draw)) as thread:
        with pytest.raises(EngineError, match="planted"):
            await text(submit(thread))
        assert not thread.is_alive
        health = thread.health(60.0)
        assert not health.ok
        assert "planted" in health.detail


async def test_work_without_a_step_is_a_stall_and_rest_is_none() -> None:
    entered, proceed = threading.Event(), threading.Event()

    def draw(step: int) -> int:
        entered.set()
        proceed.wait(5)
        return 7

    async with running(FakeStepper(draw)) as thread:
        thread.last_progress = time.monotonic() - 1000
        assert thread.health(60.0).ok
        stream = submit(thread)
        assert thread.health(60.0).ok
        await asyncio.to_thread(entered.wait, 5)
        thread.last_progress = time.monotonic() - 1000
        assert "no step" in thread.health(60.0).detail
        submit(thread).close()  # new work is no progress
        assert not thread.health(60.0).ok
        proceed.set()
        assert await text(stream) == "ggg"
        assert thread.health(60.0).ok


async def test_load_errors_are_the_loaders() -> None:
    def fail(error: Exception) -> EngineThread[Sequence]:
        def open_stepper(check: CheckWanted) -> FakeStepper:
            raise error

        return start(open_stepper)

    with pytest.raises(ModelLoadError, match="no folder"):
        await fail(ModelLoadError("no folder")).opened
    thread = fail(ValueError("odd"))
    with pytest.raises(ModelLoadError, match="odd"):
        await thread.opened
    assert thread.join(5)


async def test_a_load_that_nobody_wants_is_given_up() -> None:
    entered, proceed = threading.Event(), threading.Event()
    stepper = FakeStepper()

    def open_stepper(check: CheckWanted) -> FakeStepper:
        entered.set()
        proceed.wait(5)
        check()
        return stepper

    thread = start(open_stepper)
    await asyncio.to_thread(entered.wait, 5)
    thread.stop(EngineError("given up"))
    proceed.set()
    assert await asyncio.to_thread(thread.join, 5)
    assert not thread.opened.done()
