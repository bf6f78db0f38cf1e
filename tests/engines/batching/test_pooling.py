"""The thread that pools texts, over a made-up pooler: batching over calls, turns, cancelling and failing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from engines.base import Vectors
from engines.batching.pooling import PoolingThread
from engines.batching.thread import on_new_thread
from engines.errors import EngineError

BAD, NAN, FATAL = 99, 98, 97


class MadeUpPooler:
    """A text becomes its first token and its length. Passes wait while ``gate`` is closed."""

    width = 2
    most_texts = 3
    most_tokens = 8

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.passes: list[list[int]] = []
        self.is_closed = False

    def compute(self, texts: Sequence[Sequence[int]]) -> Vectors:
        self.began.set()
        self.gate.wait(5)
        firsts = [text[0] for text in texts]
        self.passes.append(firsts)
        if FATAL in firsts:
            raise ValueError("fatal")
        if BAD in firsts:
            raise EngineError("bad")
        numbers = [[float("nan") if text[0] == NAN else text[0], len(text)] for text in texts]
        return np.array(numbers, dtype=np.float32)

    def close(self) -> None:
        self.is_closed = True


@asynccontextmanager
async def running(pooler: MadeUpPooler) -> AsyncIterator[PoolingThread]:
    thread = PoolingThread(pooler, asyncio.get_running_loop(), on_new_thread("pooling"))
    try:
        yield thread
    finally:
        pooler.gate.set()
        thread.stop(EngineError("stopped"))
        assert await asyncio.to_thread(thread.join, 5)
        assert pooler.is_closed


async def test_calls_share_passes_in_turn() -> None:
    pooler = MadeUpPooler()
    pooler.gate.clear()
    async with running(pooler) as thread:
        first = asyncio.create_task(thread.pool([[1]]))
        await asyncio.to_thread(pooler.began.wait, 5)
        long = asyncio.create_task(thread.pool([[n] * 2 for n in range(10, 15)]))
        short = asyncio.create_task(thread.pool([[20] * 2]))
        await asyncio.sleep(0)
        assert (thread.stats().running, thread.stats().waiting) == (1, 6)
        pooler.gate.set()
        rows = await long
        assert rows.tolist() == [[n, 2] for n in range(10, 15)]
        assert (await short).tolist() == [[20, 2]]
        assert (await first).tolist() == [[1, 1]]
        # Three texts or eight tokens a pass; a call of one text does not wait for all of a longer call.
        assert pooler.passes == [[1], [10, 20, 11], [12, 13, 14]]
        assert thread.stats().prompt_tokens == 13
        assert thread.health(1.0).ok


async def test_a_text_longer_than_a_pass_goes_alone() -> None:
    pooler = MadeUpPooler()
    async with running(pooler) as thread:
        await thread.pool([[1] * 9, [2] * 9, [3], [4]])
        assert pooler.passes == [[1], [2], [3, 4]]


async def test_what_is_cancelled_is_dropped() -> None:
    pooler = MadeUpPooler()
    pooler.gate.clear()
    async with running(pooler) as thread:
        first = asyncio.create_task(thread.pool([[1]]))
        await asyncio.to_thread(pooler.began.wait, 5)
        gone = asyncio.create_task(thread.pool([[2], [3]]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert thread.stats().waiting == 0
        pooler.gate.set()
        await first
        assert (await thread.pool([[4]])).tolist() == [[4, 1]]
        assert pooler.passes == [[1], [4]]


@pytest.mark.parametrize(("token", "words"), [(BAD, "text 1 cannot be computed: bad"), (NAN, "NaN")])
async def test_one_bad_text_fails_its_call_only(token: int, words: str) -> None:
    pooler = MadeUpPooler()
    pooler.gate.clear()
    async with running(pooler) as thread:
        first = asyncio.create_task(thread.pool([[1]]))
        await asyncio.to_thread(pooler.began.wait, 5)
        bad = asyncio.create_task(thread.pool([[5], [token]]))
        good = asyncio.create_task(thread.pool([[6]]))
        await asyncio.sleep(0)
        pooler.gate.set()
        with pytest.raises(EngineError, match=words):
            await bad
        assert (await good).tolist() == [[6, 1]]
        assert (await first).tolist() == [[1, 1]]
        assert thread.health(1.0).ok


async def test_a_thread_that_dies_says_so_to_all() -> None:
    pooler = MadeUpPooler()
    async with running(pooler) as thread:
        with pytest.raises(EngineError, match="died: ValueError"):
            await thread.pool([[1], [FATAL]])
        assert not thread.health(1.0).ok
        with pytest.raises(EngineError, match="died"):
            await thread.pool([[1]])


async def test_a_stop_fails_what_is_in_flight_and_a_stall_is_told() -> None:
    pooler = MadeUpPooler()
    pooler.gate.clear()
    async with running(pooler) as thread:
        waiting = asyncio.create_task(thread.pool([[1]]))
        await asyncio.to_thread(pooler.began.wait, 5)
        assert "no step for" in thread.health(-1.0).detail
        thread.stop(EngineError("unloaded"))
        with pytest.raises(EngineError, match="unloaded"):
            await waiting
        with pytest.raises(EngineError, match="closed"):
            await thread.pool([[1]])
