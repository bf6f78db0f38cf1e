"""Anthropic's own client, as its users use it, against the real model; and what Claude Code sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
from anthropic import Anthropic

from support.server import LiveServer

QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
# Longer than what a greedy answer computes again.
SYSTEM = "Answer briefly. " * 30
GREEDY: Any = {"temperature": 0}
RECORDED = Path(__file__).parents[1] / "app" / "dialects" / "anthropic" / "claude_code.json"


@pytest.fixture
def client(server: LiveServer) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


def test_a_stream_says_what_the_document_says(client: Anthropic, model: str) -> None:
    asked: Any = {"model": model, "max_tokens": 24, "messages": QUESTION, "system": SYSTEM}
    whole = client.messages.create(**asked, extra_body=GREEDY)
    with client.messages.stream(**asked, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert whole.content[0].type == "text"
    assert text == whole.content[0].text == final.content[0].text  # type: ignore[union-attr]
    counted = client.messages.count_tokens(model=model, messages=QUESTION, system=SYSTEM)
    for message in (whole, final):
        usage = message.usage
        assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted.input_tokens
    assert final.usage.cache_read_input_tokens  # the same prompt, a moment ago


def test_how_answers_end(client: Anthropic, model: str) -> None:
    asked: Any = {"model": model, "messages": QUESTION, "extra_body": GREEDY}
    assert client.messages.create(**asked, max_tokens=2).stop_reason == "max_tokens"
    stopped = client.messages.create(**asked, max_tokens=64, stop_sequences=["nowhere", "Paris"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "Paris")
    prefill = {"role": "assistant", "content": "The capital of France is the city of"}
    went_on = client.messages.create(
        model=model, max_tokens=3, messages=[*QUESTION, prefill], extra_body=GREEDY
    )
    assert "Paris" in went_on.content[0].text  # type: ignore[union-attr]
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 2048 maximum"):
        client.messages.create(
            model=model, max_tokens=2, messages=[{"role": "user", "content": "word " * 3000}]
        )


def test_a_tool_is_called_and_its_result_read(client: Anthropic, model: str) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools: list[Any] = [{"name": "get_weather", "description": "Tells it.", "input_schema": schema}]
    asked: Any = {"model": model, "max_tokens": 64, "tools": tools, "extra_body": GREEDY}
    choice: Any = {"type": "tool", "name": "get_weather"}
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    called = client.messages.create(**asked, messages=messages, tool_choice=choice)
    (call,) = called.content
    assert (call.type, called.stop_reason) == ("tool_use", "tool_use")
    assert isinstance(call.input["city"], str)  # type: ignore[union-attr]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny, 25 degrees."}  # type: ignore[union-attr]
    messages += [called.to_param(), {"role": "user", "content": [result]}]
    assert client.messages.create(**asked, messages=messages).role == "assistant"


def test_claude_codes_second_turn_finds_the_first_in_the_cache(server: LiveServer, model: str) -> None:
    """Although the first system block is another one each time, and a note follows the result."""
    first, second, _ = json.loads(RECORDED.read_text())
    assert first["body"]["system"][0] != second["body"]["system"][0]
    second["body"]["messages"].append({"role": "system", "content": "Tokens left: 1234."})
    told = []
    with httpx.Client(base_url=server.url, timeout=300) as client:
        for request in (first, second):
            body = request["body"] | {"model": model, "max_tokens": 4, "stream": False}
            answer = client.post(request["path"], json=body, headers=request["headers"])
            assert answer.status_code == 200, answer.text
            told.append(answer.json()["usage"])
    asked = told[0]["input_tokens"] + told[0]["cache_read_input_tokens"]
    assert asked > 400
    assert told[1]["cache_read_input_tokens"] >= 0.95 * asked, told
