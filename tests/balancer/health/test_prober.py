"""The prober: when it asks, and what it makes of probes and of calls that failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextvars import ContextVar

import pytest

from balancer.health.prober import Prober, ProbeResult
from balancer.health.tracker import WATCH_INTERVAL
from support.clock import Pauses

WELL, ILL = ProbeResult(True), ProbeResult(False, "it is ill")
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


class Bench:
    """A prober whose pauses end when the test says so. ``heard``: the verdicts told, with their reasons."""

    def __init__(self) -> None:
        self.result: ProbeResult | Exception = WELL
        self.answers = asyncio.Event()
        self.answers.set()
        self.pauses = Pauses()
        self.heard: list[tuple[bool, str]] = []
        self.contexts: list[str | None] = []
        self.probes = 0
        self.prober = Prober(self._probe, self._hear, interval=30.0, sleep=self.pauses.sleep)

    async def probe(self, result: ProbeResult | Exception = WELL) -> None:
        """Let the next probe find ``result``."""
        self.result = result
        before = self.probes
        self.prober.start()
        await self.pauses.end()
        assert self.probes == before + 1

    async def _probe(self) -> ProbeResult:
        self.probes += 1
        self.contexts.append(REQUEST_ID.get())
        await self.answers.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def _hear(self) -> None:
        self.heard.append((self.prober.healthy, self.prober.detail))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.prober.stop()


async def test_it_asks_faster_while_in_doubt(bench: Bench) -> None:
    for result in (WELL, ILL, ILL, ILL, WELL, WELL):
        await bench.probe(result)
    assert bench.heard == [
        (True, ""),
        (True, "it is ill"),
        (True, "it is ill"),
        (False, "it is ill"),
        (False, ""),
        (True, ""),
    ]
    assert bench.pauses.asked == [30.0, *[WATCH_INTERVAL] * 4, 30.0]


async def test_a_result_that_says_nothing_of_health(bench: Bench) -> None:
    await bench.probe(ILL)
    await bench.probe(ILL)
    await bench.probe(ProbeResult(None, "it wants a key"))
    assert bench.heard[-1] == (True, "it wants a key")
    await bench.probe(ILL)
    assert not bench.prober.healthy


async def test_a_suspicion_is_a_failure_and_brings_the_next_probe(bench: Bench) -> None:
    await bench.probe(WELL)
    bench.result = ILL
    bench.prober.suspect()
    assert bench.heard[-1] == (True, "")
    await bench.pauses.settle()
    assert (bench.probes, bench.pauses.asked) == (2, [30.0, WATCH_INTERVAL])
    bench.prober.suspect()
    assert bench.heard[-1] == (False, "it is ill")


async def test_calls_that_fail_together_are_one_piece_of_evidence(bench: Bench) -> None:
    await bench.probe(WELL)
    bench.answers.clear()
    for _ in range(10):
        bench.prober.suspect()
    await bench.pauses.settle()
    for _ in range(10):
        bench.prober.suspect()
    assert bench.prober.healthy
    assert bench.probes == 2


async def test_a_suspicion_during_a_probe_is_looked_into_right_after_it(bench: Bench) -> None:
    bench.answers.clear()
    bench.prober.start()
    await bench.pauses.settle()
    bench.prober.suspect()
    bench.answers.set()
    await bench.pauses.settle()
    assert (bench.probes, bench.pauses.asked) == (2, [30.0])


async def test_failing_calls_alone_can_condemn(bench: Bench) -> None:
    await bench.probe(WELL)
    bench.result = ProbeResult(None)
    for healthy in (True, True, False):
        bench.prober.suspect()
        assert bench.prober.healthy is healthy
        await bench.pauses.settle()
    assert bench.heard[-2] == (False, "its calls fail")


async def test_a_mistake_in_a_probe_does_not_end_the_watch(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.probe(RecursionError("too deep"))
    assert bench.heard == [(True, "it cannot be probed: too deep")]
    assert caplog.records[0].levelno == logging.ERROR
    await bench.probe(WELL)
    assert bench.heard[-1] == (True, "")


async def test_it_belongs_to_no_request(bench: Bench) -> None:
    REQUEST_ID.set("req_1")
    await bench.probe()
    assert bench.contexts == [None]


async def test_stopping_ends_the_probe_that_is_under_way(bench: Bench) -> None:
    bench.answers.clear()
    bench.prober.start()
    bench.prober.start()
    await bench.pauses.settle()
    assert bench.probes == 1
    await bench.prober.stop()
    await bench.prober.stop()
    bench.answers.set()
    await bench.pauses.settle()
    assert bench.heard == []
