"""Shapes of answers: every key and type of a document, and of a stream's events, without the values."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import httpx

from support.structures import PERSON

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
BAD_SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "x", "strict": True, "schema": {"type": "strin"}},
}
TOOL = {"type": "function", "function": {"name": "add", "parameters": PERSON}}

# What is asked for, and the capability that it takes.
REQUESTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": (CHAT, {"messages": QUESTION, "max_tokens": 6}, "chat"),
    "chat with log probabilities": (
        CHAT,
        {"messages": QUESTION, "max_tokens": 4, "logprobs": True, "top_logprobs": 2},
        "chat",
    ),
    "several chats": (CHAT, {"messages": QUESTION, "max_tokens": 3, "n": 2}, "chat"),
    "text": (TEXT, {"prompt": "One, two,", "max_tokens": 4, "logprobs": 1}, "completion"),
    "structured chat": (
        CHAT,
        {"messages": QUESTION, "max_tokens": 80, "response_format": SCHEMA},
        "structured",
    ),
    "structured text": (
        TEXT,
        {"prompt": "It is", "max_tokens": 9, "structured_outputs": {"choice": ["yes", "no"]}},
        "structured",
    ),
    "a structure that is refused": (
        CHAT,
        {"messages": QUESTION, "response_format": BAD_SCHEMA},
        "structured",
    ),
    "a forced call": (
        CHAT,
        {
            "messages": QUESTION,
            "max_tokens": 120,
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "add"}},
        },
        "tools",
    ),
}


def shapes(client: httpx.Client, model: str, capabilities: Collection[str]) -> dict[str, Any]:
    """The shapes of the answers to all `REQUESTS` that take nothing but ``capabilities``."""
    found: dict[str, Any] = {}
    for name, (path, fields, needed) in REQUESTS.items():
        if needed not in capabilities:
            continue
        body = {"model": model, "temperature": 0, **fields}
        whole = client.post(path, json=body)
        found[name] = (whole.status_code, shape(whole.json()))
        streamed = client.post(path, json={**body, "stream": True, "stream_options": {"include_usage": True}})
        found[f"{name}, streamed"] = (streamed.status_code, _stream(streamed))
    return found


def check_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare what `shapes` found, one request after the other."""
    assert found.keys() == wanted.keys()
    for name, each in wanted.items():
        assert found[name] == each, name


def shape(value: Any) -> Any:
    """The types in a JSON value; of a list, those of its elements, each once."""
    if isinstance(value, dict):
        if value and all(isinstance(each, float) for each in value.values()):
            return "log probabilities by token"
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return _once(shape(each) for each in value)
    return "number" if isinstance(value, float) or type(value) is int else type(value).__name__


def _stream(answer: httpx.Response) -> Any:
    """The shapes of a stream's events, each once, in their order."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return shape(answer.json())
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return _once(event if event == "[DONE]" else shape(json.loads(event)) for event in events)


def _once(shapes: Any) -> list[Any]:
    found: list[Any] = []
    for each in shapes:
        if each not in found:
            found.append(each)
    return found
