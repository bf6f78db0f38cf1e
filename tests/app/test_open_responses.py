"""Open Responses: the cases that its specification wants every server to pass, with its schemas."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from engines.base import Engine
from engines.fake import FakeEngine
from engines.load_spec import LoadSpec
from engines.progress import Progress
from engines.registry import ENGINES
from support.marks import MarkReader
from support.open_responses import ResponseResource, StreamingEvent
from support.server import LiveServer, live_server

ALL = ("chat", "completion", "tools", "reasoning", "structured", "vision")
# A red square.
IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "The city and state"}},
        "required": ["location"],
    },
}
CALL = '~Look it up.^@get_weather${"location": "San Francisco, CA"}'


def user(content: Any) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": content}


# By name: what is asked, and what the model says.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "basic-response": ({"input": [user("Say hello in exactly 3 words.")]}, "Hello to you."),
    "system-prompt": (
        {
            "input": [
                {"type": "message", "role": "system", "content": "Always respond in pirate speak."},
                user("Say hello."),
            ]
        },
        "Ahoy!",
    ),
    "tool-calling": (
        {"input": [user("What's the weather like in San Francisco?")], "tools": [WEATHER]},
        CALL,
    ),
    "image-input": (
        {
            "input": [
                user(
                    [
                        {"type": "input_text", "text": "What do you see?"},
                        {"type": "input_image", "image_url": f"data:image/png;base64,{IMAGE}"},
                    ]
                )
            ]
        },
        "A red square.",
    ),
    "file-input": (
        {
            "input": [
                user(
                    [
                        {"type": "input_text", "text": "What is in it?"},
                        {
                            "type": "input_file",
                            "filename": "a.txt",
                            "file_data": f"data:text/plain;base64,{base64.b64encode(b'Hello').decode()}",
                        },
                    ]
                )
            ]
        },
        "A greeting.",
    ),
    "multi-turn": (
        {
            "input": [
                user("My name is Alice."),
                {"type": "message", "role": "assistant", "content": "Hello Alice! How can I help you today?"},
                user("What is my name?"),
            ]
        },
        "~Easy.^Alice.",
    ),
}


async def load_fake(spec: LoadSpec, progress: Progress | None) -> Engine:
    return FakeEngine(spec.name, capabilities=ALL, make_reader=MarkReader)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, "fake", replace(ENGINES["fake"], opener=lambda: load_fake))
        with live_server(inference_engine="fake", state_dir=str(tmp_path_factory.mktemp("state"))) as server:
            yield server


def ask(server: LiveServer, says: str, *, stream: bool = False, **fields: Any) -> ResponseResource:
    """The response, whose every event and field must be as the schemas have them."""
    engine = server.engine()
    assert isinstance(engine, FakeEngine)
    engine.answer = says
    body = {"model": "fake", "stream": stream, **fields}
    answer = httpx.post(f"{server.url}/v1/responses", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    if not stream:
        assert answer.headers["content-type"] == "application/json"
        return ResponseResource.model_validate(answer.json())
    assert answer.headers["content-type"].startswith("text/event-stream")
    *parts, done = [part for part in answer.text.split("\n\n") if part]
    assert done == "data: [DONE]"
    found = [json.loads(part.split("\n")[1].removeprefix("data: ")) for part in parts]
    types = [event["type"] for event in found]
    assert [f"event: {name}" for name in types] == [part.split("\n")[0] for part in parts]
    assert [event["sequence_number"] for event in found] == [*range(len(found))]
    assert (types[0], types[1]) == ("response.created", "response.in_progress")
    last = [StreamingEvent.validate_python(event) for event in found][-1]
    assert isinstance(last.response, ResponseResource)
    return last.response


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_case(server: LiveServer, name: str, stream: bool) -> None:
    fields, says = CASES[name]
    found = ask(server, says, stream=stream, **fields)
    assert found.status == "completed"
    assert found.output
    if name == "tool-calling":
        assert [item.type for item in found.output] == ["reasoning", "function_call"]
    else:
        assert found.output[-1].type == "message"


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_goes_round(server: LiveServer, stream: bool) -> None:
    question = user("What's the weather like in San Francisco?")
    first = ask(server, CALL, stream=stream, input=[question], tools=[WEATHER])
    call = first.output[-1]
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"location": "San Francisco, CA"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    # Once with the whole conversation, and once with what is stored of it.
    history = [question, *(item.model_dump() for item in first.output), result]
    whole = ask(server, "Sunny.", stream=stream, input=history, tools=[WEATHER])
    short = ask(server, "Sunny.", stream=stream, input=[result], previous_response_id=first.id)
    for each in (whole, short):
        assert (each.status, each.output[-1].type) == ("completed", "message")
    assert (short.previous_response_id, whole.previous_response_id) == (first.id, None)


def test_an_answer_that_is_cut_has_its_incomplete_item_last(server: LiveServer) -> None:
    found = ask(server, "~Easy.^One two three four", stream=True, input="Hi", max_output_tokens=6)
    assert (found.status, found.incomplete_details is not None) == ("incomplete", True)
    assert [getattr(item, "status", None) for item in found.output[1:]] == ["incomplete"]
