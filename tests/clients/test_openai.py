"""OpenAI's own package, sync and async."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from clients.expectations import CALL_TOKENS, MAX_TOKENS, Answer, Asked, Expectations, Library
from clients.server import API_KEY, BASE_URL, CONTEXT_LENGTH, EMBEDDER, MODEL

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
OPTIONAL = ("frequency_penalty", "logit_bias", "logprobs", "n", "presence_penalty", "response_format", "seed")
OPTIONAL += ("stop", "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user")


def arguments(asked: Asked) -> dict[str, Any]:
    messages = [{"role": "user", "content": asked.prompt}]
    return {"model": asked.model, "messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS}


def answer_of(completion: Any) -> Answer:
    choice, usage = completion.choices[0], completion.usage
    return Answer(choice.message.content, choice.finish_reason, usage.prompt_tokens, usage.completion_tokens)


class Sync(Library):
    missing_model = openai.NotFoundError
    wrong_key = openai.AuthenticationError
    long_prompt = openai.BadRequestError

    def ask(self, asked: Asked) -> Answer:
        with openai.OpenAI(base_url=BASE_URL, api_key=asked.api_key, max_retries=0) as client:
            return answer_of(client.chat.completions.create(**arguments(asked)))

    def stream(self, asked: Asked) -> list[str]:
        with openai.OpenAI(base_url=BASE_URL, api_key=asked.api_key, max_retries=0) as client:
            events = client.chat.completions.create(**arguments(asked), stream=True)
            return [event.choices[0].delta.content or "" for event in events]


class Async(Sync):
    def ask(self, asked: Asked) -> Answer:
        async def ask() -> Answer:
            async with openai.AsyncOpenAI(base_url=BASE_URL, api_key=asked.api_key, max_retries=0) as client:
                return answer_of(await client.chat.completions.create(**arguments(asked)))

        return asyncio.run(ask())

    def stream(self, asked: Asked) -> list[str]:
        async def stream() -> list[str]:
            async with openai.AsyncOpenAI(base_url=BASE_URL, api_key=asked.api_key, max_retries=0) as client:
                events = await client.chat.completions.create(**arguments(asked), stream=True)
                return [event.choices[0].delta.content or "" async for event in events]

        return asyncio.run(stream())


class TestSync(Expectations):
    library = Sync()


class TestAsync(Expectations):
    library = Async()


@pytest.fixture
def client() -> Any:
    return openai.OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0)


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    # docs: begin
    from openai import OpenAI

    client = OpenAI(base_url=BASE_URL, api_key=API_KEY)
    answer = client.chat.completions.create(
        model="SmolLM2-135M-Instruct",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        max_tokens=64,
    )
    print(answer.choices[0].message.content)
    # docs: end
    assert capsys.readouterr().out.strip()


def test_errors_carry_their_codes(client: Any) -> None:
    for changes, code in (
        ({"model": "no-such-model"}, "model_not_found"),
        (
            {"messages": [{"role": "user", "content": "word " * (CONTEXT_LENGTH + 500)}]},
            "context_length_exceeded",
        ),
    ):
        with pytest.raises(openai.APIStatusError) as refusal:
            client.chat.completions.create(**arguments(Asked()) | changes)
        assert refusal.value.code == code


def test_nulls_are_as_if_not_given(client: Any) -> None:
    nulls = dict.fromkeys(OPTIONAL)
    assert client.chat.completions.create(**arguments(Asked()) | nulls).choices[0].message.content


def test_fields_that_nobody_knows_are_no_obstacle(client: Any) -> None:
    extra = {"some_new_field": {"of": "tomorrow"}, "metadata": {"a": "b"}, "store": False}
    assert client.chat.completions.create(**arguments(Asked()), extra_body=extra).choices


def test_a_stream_ends_with_its_usage(client: Any) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *_, last = client.chat.completions.create(**arguments(Asked()), **options)
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens


def test_the_helper_for_streams(client: Any) -> None:
    with client.chat.completions.stream(**arguments(Asked()), stop=[" "]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].message.content in Sync().ask(Asked()).text


def test_a_forced_call_and_its_result(client: Any) -> None:
    asked = arguments(Asked()) | {"max_tokens": CALL_TOKENS, "tools": [WEATHER], "tool_choice": "required"}
    called = client.chat.completions.create(**asked, parallel_tool_calls=False).choices[0]
    assert called.finish_reason == "tool_calls"
    (call,) = called.message.tool_calls
    assert call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city"}
    with client.chat.completions.stream(**asked, parallel_tool_calls=False) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls
    assert [each.function.arguments for each in streamed] == [call.function.arguments]
    result = {"role": "tool", "tool_call_id": call.id, "content": "Rain"}
    history = [*asked["messages"], called.message, result]
    going_on = arguments(Asked()) | {"messages": history, "tools": [WEATHER], "tool_choice": "none"}
    assert client.chat.completions.create(**going_on).choices[0].message.content


def test_no_tools_are_no_obstacle(client: Any) -> None:
    answer = client.chat.completions.create(**arguments(Asked()), tools=[], tool_choice="none")
    assert answer.choices[0].message.content


def test_completions_and_models(client: Any) -> None:
    assert (
        client.completions.create(model=MODEL, prompt="Once upon", max_tokens=4, temperature=0)
        .choices[0]
        .text
    )
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


def test_embeddings_as_they_are_asked_for_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    # docs: begin
    from openai import OpenAI

    client = OpenAI(base_url=BASE_URL, api_key=API_KEY)
    found = client.embeddings.create(model="all-MiniLM-L6-v2", input=["The sun rises.", "Dawn breaks."])
    print(len(found.data[0].embedding))
    # docs: end
    assert capsys.readouterr().out == "384\n"
    numbers = client.embeddings.create(
        model=EMBEDDER, input=["The sun rises.", "Dawn breaks."], encoding_format="float"
    )
    for one, other in zip(found.data, numbers.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert found.usage == numbers.usage


def test_a_model_that_makes_no_embeddings_says_which_does() -> None:
    with openai.OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match=EMBEDDER):
            client.embeddings.create(model=MODEL, input="The sun rises.")
