"""How much a long prompt that arrives disturbs the answers that are being written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from app.cli.load import event_loop_factory, percentile
from app.cli.stream import StreamedAnswer
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.load.client import ask, chat_body

SENTENCE = "the ship and its crew sailed past the old harbor in the morning rain "
SETTLE_SECONDS = 1.0
TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class InterferencePlan:
    """``steady_tokens`` is how long the steady answers are: they must outlast the long prompt."""

    streams: int = 8
    steady_tokens: int = 1400
    prompt_tokens: int = 4000
    quiet_seconds: float = 6.0


@dataclass(frozen=True, slots=True)
class Window:
    """Two moments; a gap is in the window if they overlap, for a stall may end after its cause."""

    start: float
    end: float

    def gaps(self, answers: Sequence[StreamedAnswer]) -> list[float]:
        """Every gap between arrivals of text that touches the window."""
        return [
            after - before
            for answer in answers
            for before, after in pairwise(answer.arrivals)
            if before < after and after > self.start and before < self.end
        ]


def measure(server: BenchServer, plan: InterferencePlan) -> dict[str, float]:
    """Gaps of steady streams in quiet, and while one long prompt is prefilled. Raises `BenchError`."""
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        return runner.run(_measure(server.url, server.model(), plan))


async def _measure(url: str, model: str, plan: InterferencePlan) -> dict[str, float]:
    long_text = await _long_text(url, model, plan.prompt_tokens)
    steady = [StreamedAnswer() for _ in range(plan.streams)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(url, _steady_body(model, n, plan), a)) for n, a in enumerate(steady)]
        try:
            async with asyncio.timeout(TIMEOUT):
                return await _observe(url, chat_body(model, long_text, 4, ignore_eos=True), steady, plan)
        except TimeoutError:
            raise BenchError(f"it was not over after {TIMEOUT:.0f} s") from None
        finally:
            for task in tasks:
                task.cancel()


async def _observe(
    url: str, long_body: bytes, steady: list[StreamedAnswer], plan: InterferencePlan
) -> dict[str, float]:
    while not all(answer.arrivals or answer.is_over for answer in steady):  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # the streams wake nobody, so that they stay cheap
    await asyncio.sleep(SETTLE_SECONDS)
    start = time.perf_counter()
    await asyncio.sleep(plan.quiet_seconds)
    long = await ask(url, long_body)
    # A stall that the prompt caused ends with the next token, which may still be on its way.
    await asyncio.sleep(0.5)
    if long.first is None:
        raise BenchError(f"the long prompt got no answer: {long.error}")
    for answer in steady:
        if answer.error or (answer.is_done and answer.arrivals[-1] < long.first):
            raise BenchError(f"a steady stream ended before the long prompt: {answer.error or 'too short'}")
    return summary(Window(start, long.sent), Window(long.sent, long.first), steady, long)


def summary(
    quiet: Window, busy: Window, steady: Sequence[StreamedAnswer], long: StreamedAnswer
) -> dict[str, float]:
    """Percentiles of both windows, in milliseconds, and how they compare."""
    values = {"long_ttft_ms": 1e3 * (busy.end - busy.start), "long_prompt_tokens": float(long.prompt_tokens)}
    for name, window in (("quiet", quiet), ("busy", busy)):
        gaps = window.gaps(steady)
        values[f"{name}_gaps"] = float(len(gaps))
        for percent in (50, 99, 100):
            value = percentile(gaps, percent)
            if value is None:
                raise BenchError(f"no token came in the {name} time")
            values[f"{name}_p{percent}_ms"] = 1e3 * value
    for percent in (50, 99):
        values[f"slowdown_p{percent}"] = values[f"busy_p{percent}_ms"] / values[f"quiet_p{percent}_ms"]
    return values


def _steady_body(model: str, number: int, plan: InterferencePlan) -> bytes:
    text = f"Story {number}: tell me everything about a ship, its crew, the sea and the weather."
    return chat_body(model, text, plan.steady_tokens, ignore_eos=True)


async def _long_text(url: str, model: str, tokens: int) -> str:
    """A text of about ``tokens`` tokens, by the server's own count; asking for it warms the server up."""
    counts = []
    for sentences in (10, 20):
        answer = await ask(url, chat_body(model, SENTENCE * sentences, 1))
        if answer.error or not answer.prompt_tokens:
            raise BenchError(f"the warm-up failed: {answer.error or 'no usage came'}")
        counts.append(answer.prompt_tokens)
    each = max(1.0, (counts[1] - counts[0]) / 10)
    # It starts in its own way, so that no prefix cache knows it.
    return "Summarise this long report. " + SENTENCE * max(1, round((tokens - counts[0]) / each + 10))
