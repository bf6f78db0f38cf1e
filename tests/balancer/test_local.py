"""The life of a backend in this process: load, watch, load again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from balancer.backend import BackendState, Call, Reply
from balancer.errors import NoBackend
from balancer.local import LocalBackend
from engines.base import Engine
from engines.errors import ModelLoadError
from engines.fake import FakeEngine


class Sleeper:
    """Sleeps end when the test says so; remembers how long each was to take."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._ring = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        self._ring.clear()
        await self._ring.wait()

    async def wake(self) -> None:
        self._ring.set()
        await turns()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def nothing(engine: Engine) -> Reply:
    raise NotImplementedError


CALL = Call("r", "m", "/", b"", stream=False, run=nothing)


async def test_it_loads_and_serves() -> None:
    seen: list[BackendState] = []

    async def load(progress: Callable[[float], None]) -> Engine:
        progress(0.5)
        assert backend.status().progress == 0.5
        return FakeEngine()

    backend = LocalBackend("b", "m", load, on_change=lambda: seen.append(backend.state), sleep=Sleeper())
    assert not backend.available
    backend.start()
    await turns()
    assert backend.available
    assert backend.status().info is not None
    await backend.stop()
    assert seen == [BackendState.STARTING, BackendState.READY, BackendState.DRAINING, BackendState.STOPPED]
    assert backend.engine is None


async def test_a_failed_load_is_tried_again_with_growing_pauses() -> None:
    attempts: list[int] = []

    async def load(progress: Callable[[float], None]) -> Engine:
        attempts.append(1)
        if len(attempts) < 4:
            raise ModelLoadError("no such file")
        return FakeEngine()

    sleeper = Sleeper()
    backend = LocalBackend("b", "m", load, sleep=sleeper)
    backend.start()
    await turns()
    assert (backend.state, backend.status().detail) == (BackendState.FAILED, "no such file")
    with pytest.raises(NoBackend, match="no such file"):
        await backend.run(CALL)
    for _ in range(3):
        await sleeper.wake()
    assert backend.available
    assert sleeper.asked[:3] == [1.0, 2.0, 4.0]
    await backend.stop()


async def test_an_unhealthy_engine_is_replaced() -> None:
    engines: list[FakeEngine] = []

    async def load(progress: Callable[[float], None]) -> Engine:
        engines.append(FakeEngine())
        return engines[-1]

    sleeper = Sleeper()
    backend = LocalBackend("b", "m", load, sleep=sleeper)
    backend.start()
    await turns()
    engines[0].healthy = False
    await sleeper.wake()
    assert backend.state is BackendState.UNHEALTHY
    assert not (await engines[0].health()).ok
    await sleeper.wake()
    assert backend.available
    assert backend.engine is engines[1]
    assert backend.status().extra["restarts"] == 1
    await backend.stop()


async def test_stopping_while_loading() -> None:
    async def load(progress: Callable[[float], None]) -> Engine:
        await asyncio.Event().wait()
        raise AssertionError

    backend = LocalBackend("b", "m", load)
    backend.start()
    await turns()
    await backend.stop()
    assert backend.state is BackendState.STOPPED
