"""Several sequences as one stream, and the record that is kept of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from app.inference.merge import Generation, start
from app.inference.outcome import RequestRecord
from app.telemetry.metrics import Metrics
from app.telemetry.request_log import RequestLog
from balancer.call import Target
from engines.base import GenerationRequest, Prompt, Sampling, Usage
from engines.errors import ContextLengthExceeded, EngineError
from engines.fake import FakeEngine
from support.clock import Clock


def record(clock: Clock | None = None) -> tuple[RequestRecord, Metrics]:
    metrics = Metrics(list, lambda: 0)
    live, sinks = metrics.for_model("m"), (metrics, RequestLog())
    made = RequestRecord(Target("m"), "/x", "r", live=live, sinks=sinks, clock=clock or Clock(100.0))
    return made, metrics


async def requests(engine: FakeEngine, *texts: str, limit: int = 50) -> list[GenerationRequest]:
    return [
        GenerationRequest("r", Prompt(await engine.tokenize(text)), Sampling(temperature=0), max_tokens=limit)
        for text in texts
    ]


async def collect(generation: Generation) -> dict[int, str]:
    texts: dict[int, str] = {}
    async for index, chunk in generation:
        texts[index] = texts.get(index, "") + chunk.text
    return texts


async def test_every_stream_ends_before_the_whole_does() -> None:
    engine = FakeEngine()
    kept, metrics = record()
    generation = start(engine, await requests(engine, "a b c", "d", "e f"), kept, answers=1)
    assert await collect(generation) == {0: "a b c", 1: "d", 2: "e f"}
    assert (kept.usage().prompt_tokens, kept.usage().completion_tokens) == (6, 6)
    assert generation.finished
    kept.end("finished")
    assert metrics.snapshot()["requests"]["finished"] == 1
    await engine.close()


async def test_if_one_is_refused_none_runs() -> None:
    engine = FakeEngine(context_length=4)
    kept, metrics = record()
    both = await requests(engine, "a", "a b c d e f", limit=2)
    with pytest.raises(ContextLengthExceeded):
        start(engine, both, kept, answers=1)
    kept.end("refused")
    assert metrics.snapshot()["prompt_tokens"] == 0
    for _ in range(5):
        await asyncio.sleep(0)
    assert engine.stats().running == engine.stats().waiting == 0
    await engine.close()


async def test_one_failure_fails_the_whole_and_stops_the_others() -> None:
    engine = FakeEngine(token_delay=0.001)
    kept, metrics = record()
    generation = start(engine, await requests(engine, "a b c d", "e f g h"), kept, answers=1)
    engine.fail_next = EngineError("broken")
    with pytest.raises(EngineError, match="broken"):
        await collect(generation)
    for _ in range(5):
        await asyncio.sleep(0)
    assert engine.stats().running == 0
    # The request may go on elsewhere: whoever knows that it does not ends the record.
    assert sum(metrics.snapshot()["requests"].values()) == 0
    await engine.close()


@pytest.mark.parametrize("count", [1, 3])
async def test_closing_stops_everything_and_leaves_the_record_open(count: int) -> None:
    engine = FakeEngine(token_delay=0.001)
    kept, _ = record()
    generation = start(engine, await requests(engine, *["a b c d"] * count), kept, answers=1)
    await generation.__anext__()
    with capture_logs() as lines:
        generation.close()
        generation.close()
        await collect(generation)  # ends
        assert not generation.finished
        assert not lines
        kept.end("aborted")
    assert [(line["outcome"], line["prompt_tokens"]) for line in lines] == [("aborted", 4 * count)]
    assert lines[0]["completion_tokens"] >= 1
    for _ in range(5):
        await asyncio.sleep(0)
    assert engine.stats().running == 0
    await engine.close()


@pytest.mark.parametrize("count", [1, 3])
async def test_a_reader_that_waits_is_told_of_the_closing(count: int) -> None:
    engine = FakeEngine(token_delay=60)
    kept, _ = record()
    generation = start(engine, await requests(engine, *["a b"] * count), kept, answers=1)
    reading = asyncio.create_task(collect(generation))
    await asyncio.sleep(0)
    generation.close()
    assert await reading == {}
    assert await collect(generation) == {}
    await engine.close()


async def test_what_was_generated_elsewhere_counts_from_the_start() -> None:
    engine = FakeEngine()
    kept, _ = record()
    (request,) = await requests(engine, "a b c d")
    resumed = replace(request, generated=request.prompt.token_ids[:2])
    generation = start(engine, [resumed], kept, answers=1)
    await generation.__anext__()
    generation.close()
    assert kept.usage() == Usage(prompt_tokens=4, completion_tokens=3)
    await engine.close()


async def test_a_second_run_counts_anew() -> None:
    engine = FakeEngine()
    kept, metrics = record()
    sequences = await requests(engine, "a b c")
    for _ in range(2):
        generation = start(engine, sequences, kept, answers=1)
        await generation.__anext__()
        generation.close()
    assert await collect(start(engine, sequences, kept, answers=1)) == {0: "a b c"}
    kept.end("finished")
    snapshot = metrics.snapshot()
    assert (snapshot["prompt_tokens"], snapshot["completion_tokens"]) == (3, 3)
    assert snapshot["time_to_first_token"]["count"] == 1
    await engine.close()


async def test_times_are_measured_from_the_arrival() -> None:
    clock = Clock(100.0)
    engine = FakeEngine()
    kept, metrics = record(clock)
    generation = start(engine, await requests(engine, "a b"), kept, answers=1)
    clock.now += 2.0
    await generation.__anext__()
    clock.now += 0.5
    with capture_logs() as lines:
        await collect(generation)
        kept.end("finished")
    snapshot = metrics.snapshot()
    assert snapshot["time_to_first_token"]["mean"] == pytest.approx(2.0)
    assert snapshot["inter_token_latency"]["mean"] == pytest.approx(0.5)
    assert lines[0]["inference_time"] == pytest.approx(2.5)
    await engine.close()
