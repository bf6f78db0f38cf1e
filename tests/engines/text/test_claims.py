from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from engines.errors import EngineError
from engines.text.claims import THREADS, CallerGone, Check, Claims


class Native:
    """Work inside a library: it blocks until it is let go, and cannot be told to end."""

    def __init__(self) -> None:
        self.entered, self.go, self.done = (threading.Event() for _ in range(3))
        self.ended_by: BaseException | None = None

    def __call__(self, check: Check) -> str:
        self.entered.set()
        assert self.go.wait(5)
        try:
            check()
        except BaseException as error:
            self.ended_by = error
            raise
        finally:
            self.done.set()
        return "done"


@pytest.fixture
def native() -> Iterator[Native]:
    work = Native()
    yield work
    work.go.set()


async def reached(event: threading.Event) -> None:
    async with asyncio.timeout(5):
        while not event.is_set():
            await asyncio.sleep(0.001)


async def test_work_returns_its_result() -> None:
    assert await Claims().run(lambda check: 7) == 7


async def test_closing_waits_for_what_runs(native: Native) -> None:
    claims = Claims()
    running = asyncio.create_task(claims.run(native))
    await reached(native.entered)
    closing = asyncio.create_task(claims.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    native.go.set()
    await closing
    assert native.done.is_set()
    with pytest.raises(EngineError, match="unloaded"):
        await running
    with pytest.raises(EngineError, match="closed"):
        await claims.run(native)
    with pytest.raises(EngineError, match="closed"):
        claims.check()


async def test_a_caller_that_goes_ends_its_work_but_not_its_claim(native: Native) -> None:
    claims = Claims()
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    running = asyncio.create_task(claims.run(native))
    await reached(native.entered)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    closing = asyncio.create_task(claims.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    native.go.set()
    await closing
    assert isinstance(native.ended_by, CallerGone)
    await asyncio.sleep(0)
    gc.collect()
    assert reported == []


async def test_few_work_at_once_and_who_waits_may_go() -> None:
    claims, works = Claims(), [Native() for _ in range(THREADS + 2)]
    tasks = [asyncio.create_task(claims.run(work)) for work in works]
    for work in works[:THREADS]:
        await reached(work.entered)
    await asyncio.sleep(0.02)
    assert not any(work.entered.is_set() for work in works[THREADS:])
    tasks[-1].cancel()
    closing = asyncio.create_task(claims.close())
    with pytest.raises(EngineError, match="unloaded"):
        await tasks[-2]  # it never began
    with pytest.raises(asyncio.CancelledError):
        await tasks[-1]
    for work in works:
        work.go.set()
    await closing
    assert not works[-1].entered.is_set()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_error_of_the_work_is_the_callers() -> None:
    def work(check: Check) -> None:
        raise ValueError("no")

    claims = Claims()
    with pytest.raises(ValueError, match="no"):
        await claims.run(work)
    await claims.close()
