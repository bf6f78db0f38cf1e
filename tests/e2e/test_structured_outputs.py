"""Structured output of the real model: whatever it would like to say, it says it in the form asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from support.proofs import TIMEOUT
from support.schemas import SchemaMaker
from support.server import LiveServer

AT_ONCE = 24


def client_of(server: LiveServer) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT)


@pytest.fixture
async def client(server: LiveServer) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(server) as client:
        yield client


def question(text: str = "Answer in JSON.") -> list[Any]:
    return [{"role": "user", "content": text}]


def strict(schema: dict[str, Any]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


async def ask(client: AsyncOpenAI, model: str, *, stream: bool, **fields: Any) -> tuple[str, str | None]:
    """The text of an answer, and why it ended."""
    asked: dict[str, Any] = {"model": model, "messages": question(), "max_tokens": 300, **fields}
    if not stream:
        choice = (await client.chat.completions.create(**asked)).choices[0]
        return choice.message.content or "", choice.finish_reason
    text, reason = "", None
    async for event in await client.chat.completions.create(**asked, stream=True):
        text += event.choices[0].delta.content or ""
        reason = event.choices[0].finish_reason or reason
    return text, reason


@pytest.mark.timeout(TIMEOUT)
async def test_strict_schemas_are_kept_streamed_and_not(each_server: LiveServer, answers: int) -> None:
    turn = asyncio.Semaphore(AT_ONCE)
    model = each_server.house.default.name

    async def check(client: AsyncOpenAI, seed: int) -> None:
        schema = SchemaMaker(seed, depth=2, short=True).schema()
        async with turn:
            text, reason = await ask(
                client,
                model,
                stream=seed % 2 == 0,
                response_format=strict(schema),
                temperature=1.0,
                seed=seed,
            )
        assert reason == "stop", (schema, text)
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))

    async with client_of(each_server) as client:
        await asyncio.gather(*(check(client, seed) for seed in range(answers)))


class City(BaseModel):
    name: str
    is_capital: bool


async def test_the_sdk_parses_a_model_of_pydantics(client: AsyncOpenAI, model: str) -> None:
    answer = await client.chat.completions.parse(
        model=model,
        messages=question("What is the capital of France?"),
        response_format=City,
        max_tokens=300,
        temperature=0,
    )
    assert isinstance(answer.choices[0].message.parsed, City)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"structured_outputs": {"regex": "[0-9]{3}-[0-9]{4}"}}, r"\d{3}-\d{4}"),
        (
            {"guided_choice": ["red", "reddish", "blue"], "min_tokens": 50, "ignore_eos": True},
            "red(dish)?|blue",
        ),
        ({"grammar": 'root ::= "<" [a-z]{1,5} ">"', "logit_bias": {"28": 100}}, "<[a-z]{1,5}>"),
        ({"structured_outputs": {"grammar": 'start: "a" /[bc]/ "d"'}, "bad_words": ["a", "d"]}, "a[bc]d"),
        ({"guided_regex": "(ab)+", "max_tokens": 20, "temperature": 0, "logprobs": True}, "(ab)+a?"),
        ({"guided_choice": ["yes", "no"], "top_k": 1, "typical_p": 0.5, "temperature": 1.2}, "yes|no"),
        ({"guided_choice": ["yes", "no"], "stop_token_ids": [0, 2], "min_tokens": 4}, "yes|no"),
    ],
)
async def test_other_structures(
    client: AsyncOpenAI, model: str, fields: dict[str, Any], pattern: str
) -> None:
    known = {name: fields.pop(name) for name in ("max_tokens", "temperature", "logprobs") if name in fields}
    text, _ = await ask(client, model, stream=False, extra_body=fields, **known)
    jsonschema.validate(text, {"type": "string", "pattern": f"^({pattern})$"})


async def test_what_leaves_nothing_to_draw_is_an_error(client: AsyncOpenAI, model: str) -> None:
    body = {"guided_choice": ["yes", "no"], "allowed_token_ids": [1000]}
    with pytest.raises(openai.BadRequestError, match="allowed_token_ids"):
        await ask(client, model, stream=False, extra_body=body)


async def test_a_refusal_names_the_field_and_the_place(client: AsyncOpenAI, model: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(openai.BadRequestError) as error:
        await ask(client, model, stream=True, response_format=strict(schema))
    assert error.value.param == "response_format"
    assert "properties.a" in error.value.message
    with pytest.raises(openai.BadRequestError) as error:
        await ask(client, model, stream=True, extra_body={"guided_json": schema})
    assert error.value.param == "guided_json"
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}
    asked = {"extra_body": {"guided_json": schema}, "tools": [{**tool, "function": {"name": "f"}}]}
    with pytest.raises(openai.BadRequestError, match=r"properties\.a") as error:
        await ask(client, model, stream=False, **asked)
    assert error.value.param == "guided_json"
    with pytest.raises(openai.BadRequestError, match=r"properties\.a") as error:
        await ask(client, model, stream=False, tools=[tool], extra_body={"guided_regex": "a"})
    assert error.value.param == "tools.0.function.parameters"
    lenient = strict({**schema, "required": ["a"], "additionalProperties": False})
    lenient["json_schema"]["strict"] = False
    text, _ = await ask(client, model, stream=True, response_format=lenient, max_tokens=20)
    assert text.startswith('{"a":')
