"""Tools on a real model that was made for none: calls that are forced, and what its template cannot show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from canitoolcall.probe import BUILTIN_SCENARIOS, Scenario, probe
from openai import AsyncOpenAI

from support.server import LiveServer

QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Paris", "Rome", "Oslo"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
CLOCK = {"type": "function", "function": {"name": "get_time"}}
SCHEMAS: dict[str, Any] = {"get_weather": PARAMETERS, "get_time": {"type": "object", "maxProperties": 0}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
EACH, AT_ONCE = 25, 32


@pytest.fixture
async def client(server: LiveServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=300) as client:
        yield client


async def call(
    client: AsyncOpenAI, model: str, seed: int, choice: Any, *, stream: bool
) -> tuple[str, str, str]:
    """The name and the arguments of the one call, and the reason for which the answer ended."""
    fields: dict[str, Any] = {
        "model": model,
        "messages": QUESTION,
        "tools": [WEATHER, CLOCK],
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "seed": seed,
        "temperature": 1.0,
        "max_tokens": 60,
    }
    if not stream:
        (found,) = (await client.chat.completions.create(**fields)).choices
        assert found.message.content is None
        (whole,) = found.message.tool_calls
        return whole.function.name, whole.function.arguments, found.finish_reason
    name = arguments = reason = ""
    async for event in await client.chat.completions.create(**fields, stream=True):
        delta = event.choices[0].delta
        assert not delta.content
        for piece in delta.tool_calls or ():
            name += piece.function.name or ""
            arguments += piece.function.arguments or ""
        reason = event.choices[0].finish_reason or reason
    return name, arguments, reason


async def test_a_hundred_forced_calls(client: AsyncOpenAI, model: str) -> None:
    kinds = [(choice, stream) for choice in ("required", NAMED) for stream in (True, False)]
    room = asyncio.Semaphore(AT_ONCE)

    async def one(seed: int, choice: Any, stream: bool) -> tuple[str, str, str]:
        async with room:
            return await call(client, model, seed, choice, stream=stream)

    calls = await asyncio.gather(
        *(one(seed, choice, stream) for seed in range(EACH) for choice, stream in kinds)
    )
    assert len(calls) == 4 * EACH
    for (name, arguments, reason), (choice, _) in zip(calls, kinds * EACH, strict=True):
        jsonschema.validate(json.loads(arguments), SCHEMAS[name])
        assert reason == ("tool_calls" if choice == "required" else "stop")
        assert name == "get_weather" or choice == "required"


def forced(scenario: Scenario) -> Scenario:
    """``scenario``, with the call that it is about forced: this model would make none by itself."""
    names = scenario.expect.tool_names
    choice = {"type": "function", "function": {"name": names[0]}} if names else "auto"
    return replace(scenario, tool_choice=choice, extra_body={"max_tokens": 60})


def test_a_probe_of_tool_use_passes(server: LiveServer, model: str) -> None:
    names = {"single-call", "no-call", "empty-args", "forced-tool-choice"}
    scenarios = [forced(each) for each in BUILTIN_SCENARIOS if each.id in names]
    # One by one: streamed or not, the answers are to be the same.
    report = probe(f"{server.url}/v1", model, scenarios=scenarios, timeout_s=300, concurrency=1)
    assert len(report.outcomes) == 3 * len(names)
    for outcome in report.outcomes:
        assert outcome.status == "pass", (outcome.scenario_id, outcome.check, outcome.detail)
