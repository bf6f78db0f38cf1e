"""A closed-loop load generator: so many connections, each sending its next request when one ends.

Kept light, because client and server often share a machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from app.answer_bytes import error_message
from app.cli.client import TIMEOUT
from app.cli.common import auth_headers, is_loopback
from app.cli.stream import StreamedAnswer, StreamReader

_VOCABULARY = (
    "river stone window engine garden letter morning signal copper forest market shadow bridge island "
    "paper winter ladder music harbor candle mirror valley thunder basket orange pencil silver meadow "
    "castle planet ribbon anchor desert lantern velvet marble rocket spiral tunnel violin"
)
_WORDS = _VOCABULARY.split()


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The requests of a run. ``shared_prefix`` and ``prompt_words`` count words: most are one token."""

    url: str
    model: str
    connections: int = 8
    requests: int = 64
    max_tokens: int = 64
    prompt_words: int = 32
    shared_prefix: int = 0
    ignore_eos: bool = False
    api_key: str | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the tail of a distribution, in seconds; None where there is nothing to measure."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The figures of a run. Rates and latencies are over the requests that succeeded.

    ``client_cpu`` is the generator's own use of a core, 0 to 1: near 1, it measures itself.
    """

    requests: int
    errors: int
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    tokens_per_second: float
    requests_per_second: float
    ttft: Spread
    inter_token: Spread
    end_to_end: Spread
    client_cpu: float
    cpu_ms_per_request: float | None
    cpu_us_per_token: float | None
    first_error: str | None


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value that ``percent`` (0 to 100) of ``values`` do not exceed, interpolated; None for none."""
    if not values:
        return None
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def spread(values: Sequence[float]) -> Spread:
    return Spread(percentile(values, 50), percentile(values, 99))


def summarise(
    answers: Sequence[StreamedAnswer],
    seconds: float,
    *,
    client_cpu: float = 0.0,
    server_cpu: float | None = None,
) -> LoadReport:
    """Put a run that took ``seconds`` in numbers; ``server_cpu`` are the server's CPU seconds in it."""
    good = [answer for answer in answers if answer.error is None]
    tokens = sum(answer.completion_tokens for answer in good)
    return LoadReport(
        requests=len(answers),
        errors=len(answers) - len(good),
        seconds=seconds,
        prompt_tokens=sum(answer.prompt_tokens for answer in good),
        completion_tokens=tokens,
        tokens_per_second=tokens / seconds,
        requests_per_second=len(good) / seconds,
        ttft=spread([answer.first - answer.sent for answer in good if answer.first is not None]),
        inter_token=spread([gap for answer in good for gap in answer.gaps]),
        end_to_end=spread([answer.ended - answer.sent for answer in good]),
        client_cpu=client_cpu,
        cpu_ms_per_request=_ratio(server_cpu, len(good), 1e3),
        cpu_us_per_token=_ratio(server_cpu, tokens, 1e6),
        first_error=next((answer.error for answer in answers if answer.error is not None), None),
    )


def _ratio(total: float | None, count: int, scale: float) -> float | None:
    return total * scale / count if total is not None and count else None


def bodies(plan: LoadPlan) -> Iterator[bytes]:
    """Request bodies without end, their prompts all different and new in every run.

    Without a shared prefix they differ from the first word on, so that no prefix cache can help. With
    one, it is the system message, new in every run too, and the question differs.
    """
    generator = random.Random(plan.seed)
    run = generator.getrandbits(32)
    options: dict[str, Any] = {"ignore_eos": True} if plan.ignore_eos else {}
    shared: list[dict[str, str]] = []
    if plan.shared_prefix:
        text = f"Run {run:08x}. {_words(generator, plan.shared_prefix)}"
        shared = [{"role": "system", "content": text}]
    number = 0
    while True:
        question = f"{run ^ number:08x}: tell a story with {_words(generator, plan.prompt_words)}."
        body = {
            "model": plan.model,
            "messages": [*shared, {"role": "user", "content": question}],
            "max_tokens": plan.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **options,
        }
        yield json.dumps(body).encode()
        number += 1


def _words(generator: random.Random, count: int) -> str:
    return " ".join(generator.choices(_WORDS, k=count))


async def run(
    plan: LoadPlan, pid: int | None = None, on_done: Callable[[], None] = lambda: None
) -> LoadReport:
    """Carry out ``plan``. ``pid`` is the server's process, whose CPU time is then reported.

    Raises `psutil.NoSuchProcess` if there is no such process.
    """
    source = bodies(plan)
    remaining = iter(range(plan.requests))
    answers: list[StreamedAnswer] = []
    # One TLS context for all, because making one takes milliseconds.
    verify = ssl.create_default_context()
    cpu_before = cpu_seconds(pid) if pid is not None else 0.0
    own_before, started = time.process_time(), time.perf_counter()

    async def work() -> None:
        async with connect(plan, verify) as http:
            for _ in remaining:
                answers.append(await measure(http, next(source)))
                on_done()

    await asyncio.gather(*(work() for _ in range(min(plan.connections, plan.requests))))
    seconds = time.perf_counter() - started
    client_cpu = (time.process_time() - own_before) / seconds
    server_cpu = cpu_seconds(pid) - cpu_before if pid is not None else None
    return summarise(answers, seconds, client_cpu=client_cpu, server_cpu=server_cpu)


def connect(plan: LoadPlan, verify: ssl.SSLContext) -> httpx.AsyncClient:
    """A client with a pool of its own: one shared by all is searched for each request."""
    return httpx.AsyncClient(
        base_url=plan.url,
        headers={"Content-Type": "application/json", **auth_headers(plan.api_key)},
        timeout=TIMEOUT,
        verify=verify,
        trust_env=not is_loopback(plan.url),
        limits=httpx.Limits(max_connections=1),
    )


async def measure(http: httpx.AsyncClient, body: bytes) -> StreamedAnswer:
    """Send one request and time what comes back. Failures are in the answer, not raised."""
    answer = StreamedAnswer(sent=time.perf_counter())
    reader = StreamReader(answer)
    try:
        async with http.stream("POST", "/v1/chat/completions", content=body) as reply:
            if reply.status_code != 200:
                answer.error = error_message(await reply.aread(), reply.status_code)
            else:
                async for data in reply.aiter_bytes():
                    reader.feed(data, time.perf_counter())
    except httpx.HTTPError as error:
        answer.error = f"{type(error).__name__}: {error}"
    reader.end(time.perf_counter())
    # A server that tells no usage is counted by its events.
    answer.completion_tokens = answer.completion_tokens or len(answer.arrivals)
    return answer


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a process and its living descendants have used."""
    parent = psutil.Process(pid)
    total = 0.0
    for process in [parent, *parent.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            if process is parent:
                raise
            continue
        total += times.user + times.system
    return total


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it exists (not on Windows), to keep the generator light."""
    if os.name == "nt":
        return None
    import uvloop

    return uvloop.new_event_loop
