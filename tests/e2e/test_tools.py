"""Tools on a real model that was made for none: calls that are forced, and what its template cannot show."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from canitoolcall.probe import BUILTIN_SCENARIOS, Scenario, probe
from openai import AsyncOpenAI

from support.proofs import TIMEOUT
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
AT_ONCE = 32


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


@pytest.mark.timeout(TIMEOUT)
async def test_forced_calls_all_parse(each_server: LiveServer, answers: int) -> None:
    kinds = [(choice, stream) for choice in ("required", NAMED) for stream in (True, False)]
    room = asyncio.Semaphore(AT_ONCE)
    model, each = each_server.house.default.name, answers // len(kinds)

    async def one(client: AsyncOpenAI, seed: int, choice: Any, stream: bool) -> tuple[str, str, str]:
        async with room:
            return await call(client, model, seed, choice, stream=stream)

    async with AsyncOpenAI(
        base_url=f"{each_server.url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT
    ) as client:
        asked = (one(client, seed, choice, stream) for seed in range(each) for choice, stream in kinds)
        calls = await asyncio.gather(*asked)
    assert len(calls) == answers
    for (name, arguments, reason), (choice, _) in zip(calls, kinds * each, strict=True):
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
