"""What all of vLLM's engines have in common: one EngineCore process, its figures, and its end."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from engines.base import EngineInfo, EngineStats, Health
from engines.errors import EngineError, UnsupportedFeature
from engines.load_spec import LoadSpec
from engines.machine.dedicated_thread import in_own_thread
from engines.vllm.caches import forget_models
from engines.vllm.launch import Launch, Launched
from engines.vllm.stream import DIED

STALL_SECONDS = 60.0


class HasLaunched(Protocol):
    """The parts of an engine around a running vLLM."""

    @property
    def launched(self) -> Launched: ...


P = TypeVar("P", bound=HasLaunched)


async def start(
    spec: LoadSpec,
    progress: Callable[[float], None] | None,
    assemble: Callable[[LoadSpec, Launched], P],
) -> P:
    """Start vLLM off the loop; cancelling ends its process. One load at a time in a process.

    ``assemble`` puts the parts around it together, in the loading thread. Raises `ModelLoadError`.
    ``progress`` gets 0..1, from other threads.
    """
    report = progress or (lambda fraction: None)
    launch = Launch(spec, report)
    # Not the future's result: that would keep the parts alive for as long as something keeps it.
    made: list[P] = []
    running = in_own_thread(lambda: made.append(assemble(spec, launch.run())), "vllm-load")
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        launch.give_up()
        running.add_done_callback(lambda _: _discard(running, made))
        raise
    parts = made.pop()
    # Starts what listens to the child, and keeps the answer for the requests to come.
    await parts.launched.llm.get_supported_tasks()
    report(1.0)
    return parts


class VllmResident(ABC):
    """One model in one EngineCore process (`engines.base.Resident`)."""

    def __init__(self, launched: Launched, info: EngineInfo, stall_timeout: float) -> None:
        self._info = info
        self._launched: Launched | None = launched
        self._llm: Any = launched.llm
        self._counters = launched.counters
        self._stall_timeout = stall_timeout
        self._last_submit = time.monotonic()
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def health(self) -> Health:
        if self._closed:
            return Health(False, "closed")
        if self._llm.errored:
            return Health(False, DIED)
        stalled = time.monotonic() - max(self._counters.last_progress, self._last_submit)
        if self._live and stalled > self._stall_timeout:
            return Health(False, f"no step for {stalled:.0f} s with requests waiting")
        return Health(True)

    def stats(self) -> EngineStats:
        counters, live = self._counters, self._live
        running = min(live, counters.running)
        total = self._info.details["kv_tokens"]
        return EngineStats(
            running=running,
            waiting=live - running,
            kv_used=round(counters.kv_usage * total) if live else 0,
            kv_total=total,
            prompt_tokens=counters.prompt_tokens,
            completion_tokens=counters.completion_tokens,
            cached_tokens=counters.cached_tokens,
            preemptions=counters.preemptions,
            steps=counters.steps,
        )

    def metrics(self) -> Mapping[str, float]:
        """vLLM's own figures; the names are those of `Counters.as_metrics`."""
        return self._counters.as_metrics()

    async def sleep(self) -> None:
        self._check_sleep()
        await self._llm.sleep(level=1)

    async def wake(self) -> None:
        self._check_sleep()
        await self._llm.wake_up()

    async def close(self) -> None:
        if self._closed or self._launched is None:
            return
        self._closed = True
        await self._end_requests(EngineError("the model is being unloaded"))
        launched, self._launched = self._launched, None
        self._llm = None
        await launched.close()
        del launched
        await in_own_thread(forget_models, "vllm-forget")

    @abstractmethod
    async def _end_requests(self, reason: EngineError) -> None:
        """Fail what is in flight, and return when nothing uses vLLM any more. This is closed already."""

    @property
    def _live(self) -> int:
        """Requests that vLLM has not ended; it learns of an abort at once."""
        if self._closed or self._llm.errored:
            return 0
        return int(self._llm.get_num_unfinished_requests())

    def _check_open(self) -> None:
        """Raise `EngineError` once this is closed."""
        if self._closed:
            raise EngineError("the engine is closed")

    def _check_sleep(self) -> None:
        self._check_open()
        if "sleep" not in self.info.capabilities:
            raise UnsupportedFeature("vLLM cannot sleep on this device: unload the model instead")


def _discard(running: asyncio.Future[None], made: list[P]) -> None:
    """Free what a load made after nobody wanted it any more."""
    if not running.cancelled():
        running.exception()  # looked at: asyncio need not report it
    while made:
        in_own_thread(made.pop().launched.end, "vllm-end")
