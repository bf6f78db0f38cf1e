"""The official client, as its users use it, against the real model."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from support.server import LiveServer, wait_until

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def client(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(server: LiveServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_chat(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=32)
    assert len(answer.choices[0].message.content or "") > 20
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 32
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streamed_chat_says_the_same(client: OpenAI, model: str) -> None:
    question = [{"role": "user", "content": "What is the capital of France? " + "Answer briefly. " * 20}]
    whole = client.chat.completions.create(model=model, messages=question, temperature=0, max_tokens=32)
    stream = client.chat.completions.create(
        model=model,
        messages=question,
        temperature=0,
        max_tokens=32,
        stream=True,
        stream_options={"include_usage": True},
    )
    text, usage = "", None
    for event in stream:
        usage = event.usage or usage
        if event.choices:
            text += event.choices[0].delta.content or ""
    assert text == whole.choices[0].message.content
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens_details.cached_tokens or 0) > 0  # the same prompt, a moment ago


async def test_async_streaming_and_not(async_client: AsyncOpenAI, model: str) -> None:
    whole = await async_client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=16
    )
    stream = await async_client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=16, stream=True
    )
    text = "".join([event.choices[0].delta.content or "" async for event in stream])
    assert text == whole.choices[0].message.content


def test_raw_response(client: OpenAI, model: str) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=QUESTION, max_tokens=4, extra_headers={"x-request-id": "raw-1"}
    )
    assert raw.headers["x-request-id"] == "raw-1"
    assert raw.status_code == 200
    parsed = raw.parse()
    assert parsed.choices[0].message.content


def test_the_helper_for_streams(client: OpenAI, model: str) -> None:
    with client.chat.completions.stream(model=model, messages=QUESTION, temperature=0, stop=" ") as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"


def test_an_aborted_stream_frees_the_engine(client: OpenAI, model: str, server: LiveServer) -> None:
    stream = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=1500, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    engine = server.engine()
    assert engine is not None
    assert engine.stats().running == 1
    stream.close()
    wait_until(lambda: engine.stats().running == 0)


def test_completions(client: OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt="Once upon a time", max_tokens=8, temperature=0)
    assert answer.choices[0].text
    both = client.completions.create(
        model=model, prompt=["One, two,", "Red, green,"], max_tokens=4, temperature=0, echo=True
    )
    assert [choice.text.startswith(p) for choice, p in zip(both.choices, ("One", "Red"), strict=True)] == [
        True
    ] * 2


def test_texts_are_scored_as_evaluation_harnesses_do(client: OpenAI, model: str) -> None:
    """Token ids as a prompt, echoed with log probabilities; the last one is that of what was generated."""
    told = client.post("/tokenize", body={"model": model, "prompt": QUESTION[0]["content"]}, cast_to=object)
    assert isinstance(told, dict)
    settings: Any = {"model": model, "temperature": 0, "echo": True, "logprobs": 1}
    scored = [
        client.completions.create(prompt=told["tokens"], max_tokens=count, **settings).choices[0].logprobs
        for count in (1, 0)
    ]
    assert scored[0] is not None
    assert scored[1] is not None
    values = scored[0].token_logprobs or []
    assert len(values) == len(scored[0].tokens or []) == told["count"] + 1
    assert values[0] is None
    assert all(value <= 0 for value in values[1:])
    assert scored[1].token_logprobs == pytest.approx(values[:-1], abs=0.3, nan_ok=True)


def test_logprobs(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=6, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == answer.choices[0].message.content
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 3 for entry in logprobs.content)


def test_logit_bias_and_seed(client: OpenAI, model: str, server: LiveServer) -> None:
    engine = server.engine()
    assert engine is not None
    plain = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=1)
    import asyncio

    token = asyncio.run(engine.tokenize(plain.choices[0].message.content or "", add_special=False))[0]
    banned = client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=1, logit_bias={str(token): -100}
    )
    assert banned.choices[0].message.content != plain.choices[0].message.content
    seeded = [
        client.chat.completions.create(model=model, messages=QUESTION, temperature=1, seed=3, max_tokens=12)
        for _ in range(2)
    ]
    assert seeded[0].choices[0].message.content == seeded[1].choices[0].message.content


def test_models(client: OpenAI, model: str) -> None:
    assert next(card.id for card in client.models.list()) == model  # the default model comes first
    assert client.models.retrieve(model).id == model


def test_responses(client: OpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "input": "What is the capital of France?", "temperature": 0}
    whole = client.responses.create(**asked, max_output_tokens=3)
    with client.responses.stream(**asked, max_output_tokens=200) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_response()
    assert streamed.output_text.startswith(whole.output_text)
    assert (whole.status, streamed.status) == ("incomplete", "completed")
    follows: dict[str, Any] = {"model": model, "input": "And of Spain?", "previous_response_id": streamed.id}
    counted = client.responses.input_tokens.count(**follows)
    third = client.responses.create(**follows, max_output_tokens=4)
    assert third.usage is not None
    assert third.usage.input_tokens == counted.input_tokens
    assert third.usage.input_tokens_details.cached_tokens > 20
    digits: Any = {"type": "grammar", "syntax": "regex", "definition": "[0-9]{3} [0-9]{2}"}
    tool: Any = {"type": "custom", "name": "dial", "description": "Calls a number.", "format": digits}
    forced: Any = {"type": "custom", "name": "dial"}
    (call,) = client.responses.create(**asked, tools=[tool], tool_choice=forced).output
    assert call.type == "custom_tool_call"
    assert re.fullmatch("[0-9]{3} [0-9]{2}", call.input)


def test_errors_are_the_sdks_own(client: OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nope", messages=QUESTION)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model=model, prompt="word " * 3000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=model, messages=QUESTION, temperature=9)
    assert wrong.value.param == "temperature"


def test_a_history_with_tools_and_what_is_made_to_fit(client: OpenAI, model: str) -> None:
    """On an engine that cannot call tools, with a template that does not know calls."""
    call = {"id": "1", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    history: list[Any] = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "Half past nine"},
    ]
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=history,
        max_tokens=10_000,
        temperature=None,
        n=None,
        tools=[],
        tool_choice="none",
        stop=[" ", "."],
        extra_body={"wat": 1},
    )
    assert raw.headers["x-enginehouse-ignored"] == "wat"
    plain = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=1)
    usage, before = raw.parse().usage, plain.usage
    assert usage is not None
    assert before is not None
    assert usage.prompt_tokens > before.prompt_tokens + 20  # the call and its result are in there
