"""What a JSON schema costs the answers that have it, and those beside them that have none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from app.cli.load import event_loop_factory
from app.cli.stream import StreamedAnswer
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.load.client import ask, chat_body

# More of them than any answer has room for: all answers are of equal length.
PEOPLE: dict[str, Any] = {
    "type": "array",
    "minItems": 200,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 24},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "city": {"type": "string", "maxLength": 24},
            "role": {"enum": ["captain", "mate", "cook", "sailor"]},
            "skills": {"type": "array", "items": {"type": "string", "maxLength": 16}, "maxItems": 3},
            "aboard": {"type": "boolean"},
        },
        "required": ["name", "age", "city", "role", "skills", "aboard"],
        "additionalProperties": False,
    },
}


@dataclass(frozen=True, slots=True)
class StructuredPlan:
    connections: int = 8
    tokens: int = 128
    rounds: int = 3


def measure(server: BenchServer, plan: StructuredPlan) -> dict[str, float]:
    """Tokens a second of answers at once: none, all and half of them with a schema. Raises `BenchError`."""
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        return runner.run(_measure(server.url, server.model(), plan))


async def _measure(url: str, model: str, plan: StructuredPlan) -> dict[str, float]:
    free: list[float] = []
    bound: list[float] = []
    alone: list[float] = []
    beside: list[float] = []
    every = plan.connections
    for number in range(plan.rounds + 1):
        none, all_, half = [await _round(url, model, plan, count) for count in (0, every, every // 2)]
        if number:  # after the warm-up, for which prompts are computed and the schema compiled
            free.append(_together(none))
            bound.append(_together(all_))
            alone += map(_rate, none)
            beside += map(_rate, half[every // 2 :])
    rates = {"free_tokens_per_s": median(free), "schema_tokens_per_s": median(bound)}
    ratios = {
        "schema_by_free": median(each / one for each, one in zip(bound, free, strict=True)),
        "neighbour_by_free": median(beside) / median(alone),
    }
    return {**rates, **ratios}


async def _round(url: str, model: str, plan: StructuredPlan, bound: int) -> list[StreamedAnswer]:
    """Answers at once, the first ``bound`` of them with the schema."""
    bodies = [_body(model, n, plan.tokens, has_schema=n < bound) for n in range(plan.connections)]
    answers = await asyncio.gather(*(ask(url, body) for body in bodies))
    for answer in answers:
        if answer.error or answer.completion_tokens < plan.tokens:
            raise BenchError(f"an answer was not whole: {answer.error or answer.completion_tokens}")
    return answers


def _body(model: str, number: int, tokens: int, *, has_schema: bool) -> bytes:
    text = f"List {200 + number} people of a ship's crew as a JSON array of objects."
    body = json.loads(chat_body(model, text, tokens, ignore_eos=True))
    if has_schema:
        named = {"name": "crew", "schema": PEOPLE, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    return json.dumps(body).encode()


def _together(answers: Sequence[StreamedAnswer]) -> float:
    tokens = sum(answer.completion_tokens for answer in answers)
    first = min(answer.first or answer.ended for answer in answers)
    return tokens / (max(answer.ended for answer in answers) - first)


def _rate(answer: StreamedAnswer) -> float:
    return answer.completion_tokens / (answer.ended - (answer.first or answer.sent))
