"""Ollama's messages and answers, translated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.dialects.ollama.answers import GenerationTranslation, chat_shape
from app.dialects.ollama.embeddings import EmbeddingsTranslation
from app.dialects.ollama.messages import openai_messages
from app.dialects.ollama.names import found
from app.dialects.ollama.schema import OllamaMessage
from app.dialects.ollama.timing import Timing
from balancer.errors import BadAnswer
from engines.errors import ModelFileNotFound

EVENTS = [(b"content-type", b"text/event-stream")]


def timing(load: float = 0.0) -> Timing:
    ticks = iter(range(0, 10**12, 10**9))
    return Timing(lambda: load, lambda: next(ticks))


def converted(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return openai_messages([OllamaMessage.model_validate(each) for each in messages])


def called(name: str, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": {"x": 1}}, **more}


def test_tools_answer_the_calls_that_wait() -> None:
    found = converted(
        {
            "role": "assistant",
            "thinking": "Hm.",
            "tool_calls": [called("a"), called("b"), called("a", id="c7")],
        },
        {"role": "tool", "tool_name": "b", "content": "2"},
        {"role": "tool", "tool_call_id": "c7", "content": "3"},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "nobody asked"},
    )
    calls = found[0]["tool_calls"]
    assert (found[0]["content"], found[0]["reasoning_content"]) == (None, "Hm.")
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"x": 1}] * 3
    first, second, third = (call["id"] for call in calls)
    assert third == "c7"
    assert [each["tool_call_id"] for each in found[1:]] == [second, third, first, "call_4"]


def test_pictures_become_data_urls() -> None:
    (found,) = converted({"role": "user", "content": "What?", "images": ["/9j/abc", "iVBORw0KGgoabc"]})
    kinds = [part["type"] for part in found["content"]]
    assert kinds == ["image_url", "image_url", "text"]
    urls = [part["image_url"]["url"] for part in found["content"][:2]]
    assert urls == ["data:image/jpeg;base64,/9j/abc", "data:image/png;base64,iVBORw0KGgoabc"]


def event(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: %b\n\n" % json.dumps({"choices": [choice], **more}).encode()


STREAM = (
    event({"role": "assistant", "content": None})
    + event({"reasoning": "Hm."})
    + event({"content": "wörld"})
    + b": a comment\n\n"
    + event({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a"'}}]})
    + event({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})
    + event({"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "g", "arguments": "["}}]})
    + event({}, "tool_calls")
    + b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n'
    + b"data: [DONE]\n\n"
)


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("stream", [False, True])
def test_events_in_any_pieces(size: int, stream: bool) -> None:
    translation = GenerationTranslation("m", timing(load=0.5), chat_shape, stream=stream)
    headers = translation.begin(200, [*EVENTS, (b"x-y", b"z")])
    assert headers[0] == (b"x-y", b"z")
    data = b"".join(translation.feed(STREAM[at : at + size]) for at in range(0, len(STREAM), size))
    data += translation.end()
    told = [json.loads(line) for line in data.splitlines()]
    assert (len(told) > 1) == stream
    messages = [each["message"] for each in told]
    assert "".join(each.get("thinking", "") for each in messages) == "Hm."
    # A call whose arguments are no object has no place but the text.
    assert "".join(each["content"] for each in messages) == "wörldg([)"
    (call,) = [call for each in messages for call in each.get("tool_calls", ())]
    assert call == {"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}
    last = told[-1]
    assert (last["done"], last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == (
        True,
        "stop",
        5,
        7,
    )
    # The clock ticks by the second: the first piece came at 1, of which half a second was the load.
    assert (last["load_duration"], last["prompt_eval_duration"]) == (500_000_000, 500_000_000)
    assert last["eval_duration"] >= 1


@pytest.mark.parametrize(
    "data",
    [
        b"data: no\n\n",
        b"data: 1\n\n",
        b'data: {"error": {"message": "it broke"}}\n\n',
        b'data: {"choices": [1]}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": [{"index": "x"}]}}]}\n\n',
        b'data: {"choices": [{"delta": {"content": [1]}}]}\n\n',
    ],
)
def test_what_is_no_event_is_a_bad_answer(data: bytes) -> None:
    translation = GenerationTranslation("m", timing(), chat_shape, stream=True)
    translation.begin(200, EVENTS)
    with pytest.raises(BadAnswer):
        translation.feed(data)


@pytest.mark.parametrize(
    ("status", "headers"),
    [(200, [(b"content-type", b"application/json")]), (200, [*EVENTS, (b"content-encoding", b"gzip")])],
)
def test_what_cannot_be_read_is_a_bad_answer(status: int, headers: list[tuple[bytes, bytes]]) -> None:
    translation = GenerationTranslation("m", timing(), chat_shape, stream=True)
    with pytest.raises(BadAnswer):
        translation.begin(status, headers)


@pytest.mark.parametrize("size", [1, 13, 10_000])
def test_vectors_in_any_pieces(size: int) -> None:
    vectors = [[0.5, -1e-9, 3], [1.0, 2.0, 4]]
    data = [{"object": "embedding", "index": i, "embedding": each} for i, each in enumerate(vectors)]
    body = json.dumps({"usage": {"prompt_tokens": 9}, "data": data, "model": "x"}, indent=1).encode()
    translation = EmbeddingsTranslation("m", timing(), 2, is_older=False)
    translation.begin(200, [(b"content-type", b"application/json"), (b"content-length", b"5")])
    told = b"".join(translation.feed(body[at : at + size]) for at in range(0, len(body), size))
    answer = json.loads(told + translation.end())
    assert (answer["model"], answer["embeddings"], answer["prompt_eval_count"]) == ("m", vectors, 9)
    missing = EmbeddingsTranslation("m", timing(), 3, is_older=False)
    missing.feed(body)
    with pytest.raises(BadAnswer, match="3 vectors were asked for, and 2 came"):
        missing.end()


def test_a_tag_that_changes_nothing() -> None:
    def find(name: str) -> str:
        if name not in ("a", "b:latest"):
            raise ModelFileNotFound(name)
        return name

    assert [found(name, find)[0] for name in ("a", "a:latest", "b:latest")] == ["a", "a", "b:latest"]
    with pytest.raises(ModelFileNotFound):
        found("c:latest", find)
