"""Anthropic's Messages API, by Anthropic's own client, with a fake engine that says what it is told."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
from anthropic import Anthropic
from anthropic.types import RawMessageStreamEvent
from PIL import Image
from pydantic import BaseModel, TypeAdapter

from app.dialects.anthropic.tools import MAX_TOOLS
from app.inference import response
from app.inference.pings import Pings
from engines.base import Engine, Structure
from engines.errors import EngineError
from engines.fake import FakeEngine
from engines.load_spec import LoadSpec
from engines.progress import Progress
from engines.registry import ENGINES
from support.marks import MarkReader
from support.server import LiveServer, live_server

ALL = ("chat", "completion", "tools", "reasoning", "structured", "vision")
PATH = "/v1/messages"
QUESTION: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"name": "get_weather", "description": "Tells it.", "input_schema": SCHEMA}
CLOCK: Any = {"name": "get_time", "input_schema": {"type": "object"}}
SEARCH: Any = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
GREEDY: Any = {"temperature": 0}
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def picture() -> str:
    data = BytesIO()
    Image.new("RGB", (4, 4), "red").save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


IMAGE: Any = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": picture()},
    "cache_control": {"type": "ephemeral"},
}


async def load_fake(spec: LoadSpec, progress: Progress | None) -> Engine:
    if spec.name == "able":
        return FakeEngine(spec.name, capabilities=ALL, make_reader=MarkReader, context_length=2048)
    return FakeEngine(spec.name, capabilities=("chat", "completion"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    base: Path = tmp_path_factory.mktemp("models")
    names = ("able", "plain")
    (base / "models.yaml").write_text(
        "models:\n" + "".join(f"  - {{name: {name}, engine: fake}}\n" for name in names)
    )
    modes = {"inference_mode": "multi_instance", "max_concurrent_models": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, "fake", replace(ENGINES["fake"], opener=lambda: load_fake))
        keys = frozenset({"one"})
        with live_server(model_base_path=base, default_model="able", api_keys=keys, **modes) as server:
            yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"x-api-key": "one"}, timeout=30) as client:
        yield client


@pytest.fixture
def sdk(server: LiveServer) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.url, api_key="one", max_retries=0) as client:
        yield client


def says(server: LiveServer, answer: str | None) -> FakeEngine:
    """The able engine, which will say ``answer``, or its prompt."""
    found = server.engine("able")
    assert isinstance(found, FakeEngine)
    found.answer = answer
    return found


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "able", "max_tokens": 400, "messages": QUESTION, **GREEDY, **fields}


def events(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream, each as the client's types have it."""
    answer = client.post(PATH, json=body(stream=True, **fields), params={"beta": "true"})
    assert answer.status_code == 200, answer.text
    found = []
    for part in answer.text.split("\n\n")[:-1]:
        name, data = part.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENT.validate_python(event, extra="forbid")
        found.append(event)
    return found


def ask(sdk: Anthropic, **fields: Any) -> Any:
    given = body(**fields)
    extra = {
        name: given.pop(name) for name in ("temperature", "top_k", "top_p", "output_format") if name in given
    }
    return sdk.messages.create(**given, extra_body=extra)


def streamed(sdk: Anthropic, **fields: Any) -> Any:
    given = body(**fields)
    extra = {name: given.pop(name) for name in ("temperature", "output_format") if name in given}
    with sdk.messages.stream(**given, extra_body=extra) as stream:
        return stream.get_final_message()


def without_ids(message: Any) -> Any:
    told = message.to_dict()
    told.pop("id")
    told.pop("stop_details", None)
    for block in told["content"]:
        block.pop("id", None)
        block.pop("parsed_output", None)
    return told


ANSWERS: list[tuple[str, dict[str, Any], list[str], str]] = [
    ("Sunny.", {}, ["text"], "end_turn"),
    ("~Hm.^Sunny.", {}, ["thinking", "text"], "end_turn"),
    (
        "~Hm.^Sunny.",
        {"thinking": {"type": "adaptive", "display": "omitted"}},
        ["thinking", "text"],
        "end_turn",
    ),
    ("~Hm.^One.~Oh.^Two.", {}, ["thinking", "text", "thinking", "text"], "end_turn"),
    ("A b c d e f g", {"max_tokens": 3}, ["text"], "max_tokens"),
    ("One END two", {"stop_sequences": ["STOP", "END"]}, ["text"], "stop_sequence"),
    ('@get_weather${"city": "Zürich"}', {"tools": [WEATHER]}, ["tool_use"], "tool_use"),
    (
        '~Hm.^Well. @get_weather${"city": "Paris"}@get_time${}',
        {"tools": [WEATHER, CLOCK, SEARCH]},
        ["thinking", "text", "tool_use", "tool_use"],
        "tool_use",
    ),
    ("@get_time$", {"tools": [CLOCK]}, ["tool_use"], "tool_use"),
    # Cut in the midst of its arguments.
    ('@get_weather${"city": "Par', {"tools": [WEATHER], "max_tokens": 8}, ["tool_use"], "max_tokens"),
]


@pytest.mark.parametrize(("answer", "fields", "kinds", "reason"), ANSWERS)
def test_a_stream_says_what_the_document_says(
    sdk: Anthropic,
    client: httpx.Client,
    server: LiveServer,
    answer: str,
    fields: dict[str, Any],
    kinds: list[str],
    reason: str,
) -> None:
    says(server, answer)
    whole = ask(sdk, **fields)
    assert ([block.type for block in whole.content], whole.stop_reason) == (kinds, reason)
    assert whole.stop_sequence == ("END" if reason == "stop_sequence" else None)
    assert without_ids(streamed(sdk, **fields)) == without_ids(whole)
    told = events(client, **fields)
    blocks = [(event["type"], event["index"]) for event in told if event["type"].startswith("content_block")]
    assert [index for kind, index in blocks if kind == "content_block_start"] == list(range(len(kinds)))
    assert blocks == sorted(blocks, key=lambda each: each[1])  # one after the other
    assert [event["type"] for event in told[-2:]] == ["message_delta", "message_stop"]
    assert told[0]["message"]["usage"]["input_tokens"] == whole.usage.input_tokens


def test_thinking_goes_out_and_comes_back(sdk: Anthropic, server: LiveServer) -> None:
    for thinking in ({"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive", "display": "omitted"}):
        says(server, '~Hm, so.^Well.@get_weather${"city": "Paris"}')
        first = ask(sdk, tools=[WEATHER], thinking=thinking)
        thought, text, call = first.content
        is_told = thinking["type"] == "enabled"
        assert (thought.thinking, text.text) == ("Hm, so." if is_told else "", "Well.")
        assert thought.signature
        assert call.id.startswith("toolu_")
        engine = says(server, None)
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
        redacted = {"type": "redacted_thinking", "data": "x"}
        history = [
            *QUESTION,
            {"role": "assistant", "content": [redacted, *first.content]},
            {"role": "user", "content": [result, {"type": "text", "text": "And now?"}]},
        ]
        second = ask(sdk, messages=history, tools=[WEATHER], thinking=thinking)
        echoed = second.content[-1].text if second.content else ""
        assert "tool: sunny\nuser: And now?" in f"{second.to_json()}".replace("\\n", "\n") or echoed
        rendering = engine.last_rendering
        assert rendering is not None
        assert (rendering.reasons, rendering.must_take_effort) == (True, False)


@pytest.mark.parametrize(
    ("fields", "reasons", "effort"),
    [
        ({}, False, None),
        ({"thinking": {"type": "disabled"}}, False, None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, True, "high"),
        ({"output_config": {"effort": "high"}}, False, None),
    ],
)
def test_who_thinks_and_how_much(
    sdk: Anthropic, server: LiveServer, fields: dict[str, Any], reasons: bool, effort: str | None
) -> None:
    engine = says(server, "Yes.")
    ask(sdk, **fields)
    rendering = engine.last_rendering
    assert rendering is not None
    assert (rendering.reasons, rendering.reasoning_effort) == (reasons, effort)


@pytest.mark.parametrize(
    ("choice", "required", "named", "parallel"),
    [
        ({"type": "auto"}, False, None, True),
        ({"type": "auto", "disable_parallel_tool_use": True}, False, None, False),
        ({"type": "any"}, True, None, True),
        ({"type": "tool", "name": "get_time"}, False, "get_time", True),
    ],
)
def test_choices_of_tools(
    sdk: Anthropic,
    server: LiveServer,
    choice: dict[str, Any],
    required: bool,
    named: str | None,
    parallel: bool,
) -> None:
    engine = says(
        server, "{}" if named else '[{"name": "get_time", "parameters": {}}]' if required else "No."
    )
    deferred = {**CLOCK, "name": "later", "defer_loading": True}
    answer = ask(sdk, tools=[WEATHER, CLOCK, SEARCH, deferred], tool_choice=choice)
    request = engine.last_request
    assert request is not None
    assert request.answer is not None
    tools = request.answer.tools
    if named or required:
        assert [block.name for block in answer.content] == ["get_time"]
        assert answer.stop_reason == "tool_use"
    else:
        assert tools is not None
        assert [each["function"]["name"] for each in tools.definitions] == ["get_weather", "get_time"]
        assert tools.parallel == parallel


def test_deferred_tools_come_with_a_reference(sdk: Anthropic, server: LiveServer) -> None:
    engine = says(server, "No.")
    reference = {"type": "tool_reference", "tool_name": "later"}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [reference]}
    call = {"type": "tool_use", "id": "t", "name": "search", "input": {}}
    messages = [*QUESTION, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    ask(sdk, messages=messages, tools=[CLOCK, {**CLOCK, "name": "later", "defer_loading": True}])
    assert engine.last_request is not None
    assert engine.last_request.answer is not None
    tools = engine.last_request.answer.tools
    assert tools is not None
    assert [each["function"]["name"] for each in tools.definitions] == ["get_time", "later"]


class City(BaseModel):
    city: str


def test_a_schema_for_the_text(sdk: Anthropic, server: LiveServer) -> None:
    engine = says(server, '{"city": "Paris"}')
    parsed = sdk.messages.parse(model="able", max_tokens=99, messages=QUESTION, output_format=City)
    assert parsed.parsed_output == City(city="Paris")
    assert engine.last_request is not None
    structure = engine.last_request.structure
    assert structure is not None
    assert structure.kind == "json_schema"
    ask(sdk, output_format={"type": "json_schema", "schema": SCHEMA})
    assert engine.last_request.structure == Structure("json_schema", json.dumps(SCHEMA))


USER = {"role": "user", "content": "Hi"}
CALL = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}}
CALLED = {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}, CALL]}


def resulted(content: Any, *more: Any, **fields: Any) -> list[Any]:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": content, **fields}
    return [USER, CALLED, {"role": "user", "content": [result, *more]}]


TEXT = {"type": "text", "text": "And then?"}
DOCUMENT = {
    "type": "document",
    "title": "Notes",
    "source": {"type": "text", "media_type": "text/plain", "data": "x"},
}
COUNTED: list[dict[str, Any]] = [
    {},
    {"system": "Be brief."},
    {"system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
    {
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cch=1a2b3;"},
            {"type": "text", "text": "B."},
        ]
    },
    {"messages": [USER, {"role": "assistant", "content": "Hello."}, USER]},
    {"messages": [USER, {"role": "assistant", "content": "The answer is ("}]},
    {"messages": [USER, {"role": "system", "content": "Answer in French."}]},
    {"messages": [{"role": "user", "content": [TEXT, TEXT]}]},
    {"messages": [{"role": "user", "content": [IMAGE, TEXT]}]},
    {"messages": [{"role": "user", "content": [DOCUMENT, TEXT]}]},
    {"messages": resulted("sunny"), "tools": [WEATHER]},
    {"messages": resulted([TEXT, TEXT]), "tools": [WEATHER]},
    {"messages": resulted([IMAGE]), "tools": [WEATHER]},
    {"messages": resulted("no such city", is_error=True), "tools": [WEATHER]},
    {"messages": resulted("sunny", TEXT), "tools": [WEATHER]},
    {"messages": resulted(None), "tools": [WEATHER]},
    {"tools": [WEATHER, CLOCK, SEARCH]},
    {"tools": [WEATHER], "tool_choice": {"type": "none"}},
    {"thinking": {"type": "enabled", "budget_tokens": 2000}},
    {"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}},
]


@pytest.mark.parametrize("fields", COUNTED)
def test_counts_are_what_is_used(sdk: Anthropic, server: LiveServer, fields: dict[str, Any]) -> None:
    says(server, "Yes.")
    counted = sdk.messages.count_tokens(**{"model": "able", "messages": QUESTION, **fields}).input_tokens
    usage = ask(sdk, **fields).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens
    assert counted > 0


BILLED = [
    {"type": "text", "text": "x-anthropic-billing-header: cch=%s;"},
    {"type": "text", "text": "Be brief."},
]


def test_a_header_for_the_bill_is_not_in_the_prompt(sdk: Anthropic, server: LiveServer) -> None:
    says(server, None)
    told = ask(sdk, system=BILLED).content[0].text
    assert told.startswith("system: Be brief.\nuser: What")


def test_an_answer_goes_on_with_the_last_message(sdk: Anthropic, server: LiveServer) -> None:
    engine = says(server, "42).")
    prefill = {"role": "assistant", "content": [{"type": "text", "text": "It is ("}]}
    assert ask(sdk, messages=[*QUESTION, prefill]).content[0].text == "42)."
    assert engine.last_rendering is not None
    assert engine.last_rendering.continue_final


def test_what_is_accepted_without_effect(client: httpx.Client, server: LiveServer) -> None:
    says(server, "Yes.")
    accepted = {
        "metadata": {"user_id": "x"},
        "service_tier": "standard_only",
        "speed": "fast",
        "mcp_servers": [],
        "container": None,
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "cache_control": {"type": "ephemeral"},
        "top_k": 40,
        "top_p": 0.9,
        "tools": [SEARCH],
    }
    headers = {"anthropic-version": "2099-01-01", "anthropic-beta": "never-heard-of,and-that"}
    answer = client.post(PATH, json=body(**accepted), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert answer.headers["x-enginehouse-ignored"] == "tools.max_uses, tools.web_search_20250305"


def many(count: int) -> list[Any]:
    return [{**CLOCK, "name": f"t{i}"} for i in range(count)]


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"max_tokens": None}, "invalid_request_error", "max_tokens:"),
        ({"messages": []}, "invalid_request_error", "messages:"),
        ({"messages": [{"role": "user"}]}, "invalid_request_error", "messages.0.content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_request_error", "messages.0: its role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "server_tool_use", "id": "s"}]}]},
            "invalid_request_error",
            "messages.0.content.0: its type 'server_tool_use'",
        ),
        (
            {"messages": [{"role": "user", "content": [{**DOCUMENT, "citations": {"enabled": True}}]}]},
            "unsupported_feature",
            "citations",
        ),
        ({"container": "c1"}, "unsupported_feature", "`container`"),
        ({"mcp_servers": [{"url": "x"}]}, "unsupported_feature", "`mcp_servers`"),
        ({"tool_choice": {"type": "any"}}, "invalid_request_error", "no tools"),
        (
            {"tools": [SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}},
            "unsupported_feature",
            "web_search_20250305",
        ),
        ({"tools": [CLOCK], "tool_choice": {"type": "tool", "name": "x"}}, "invalid_request_error", "'x'"),
        ({"tools": [CLOCK, CLOCK]}, "invalid_request_error", "get_time"),
        ({"tools": many(MAX_TOOLS + 1)}, "invalid_request_error", "tools"),
        (
            {
                "tools": [CLOCK],
                "tool_choice": {"type": "any"},
                "output_config": {"format": {"type": "json_schema", "schema": {}}},
            },
            "invalid_request_error",
            "output_config.format",
        ),
        (
            {"messages": [{"role": "user", "content": "word " * 5000}]},
            "context_length_exceeded",
            "tokens > 2048 maximum",
        ),
        ({"messages": [{"role": "system", "content": ""}]}, "invalid_request_error", "nothing to answer"),
        ({"model": "plain", "tools": [CLOCK]}, "unsupported_feature", "tool calling"),
        (
            {"model": "plain", "messages": [{"role": "user", "content": [IMAGE]}]},
            "unsupported_feature",
            "messages.0.content.0.source.data",
        ),
    ],
)
def test_what_is_wrong_is_named(client: httpx.Client, fields: dict[str, Any], code: str, words: str) -> None:
    answer = client.post(PATH, json=body(**fields))
    told = answer.json()
    assert (answer.status_code, told["type"], told["error"]["type"]) == (
        400,
        "error",
        "invalid_request_error",
    )
    assert told["error"]["details"]["error_code"] == code
    assert words in told["error"]["message"]
    assert told["request_id"] == answer.headers["request-id"]


def test_errors_are_the_clients_own(sdk: Anthropic, server: LiveServer) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        ask(sdk, model="nope")
    assert (missing.value.type, missing.value.error_code) == ("not_found_error", "model_not_found")
    with Anthropic(base_url=server.url, api_key="wrong", max_retries=0) as other:
        with pytest.raises(anthropic.AuthenticationError) as wrong:
            ask(other)
        assert wrong.value.type == "authentication_error"
        assert wrong.value.request_id
        with pytest.raises(anthropic.AuthenticationError):
            other.models.list()
    with Anthropic(base_url=server.url, auth_token="one", max_retries=0) as bearer:
        assert ask(bearer).role == "assistant"
    with pytest.raises(anthropic.ContentTooLargeError) as large:
        ask(sdk, system="x" * 11 * 2**20)
    assert large.value.body["error"]["type"] == "request_too_large"  # type: ignore[index]


def test_paths_that_are_not_there(client: httpx.Client) -> None:
    for method, path, status, kind in (
        ("GET", PATH, 405, "invalid_request_error"),
        ("POST", f"{PATH}/batches", 404, "not_found_error"),
        ("GET", f"{PATH}/msg_1", 404, "not_found_error"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    assert client.head("/").status_code == 200
    assert client.post("/messages", json=body()).json()["type"] == "message"


def test_a_stream_that_fails_says_so(
    sdk: Anthropic, server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = says(server, "One two three")
    monkeypatch.setattr(engine, "_delay", 0.03)
    stream = sdk.messages.create(model="able", max_tokens=9, messages=QUESTION, stream=True)
    assert next(stream).type == "message_start"
    engine.fail_next = EngineError("it broke")
    with pytest.raises(anthropic.APIStatusError) as failed:
        list(stream)
    assert failed.value.type == "api_error"


def test_a_long_silence_is_broken(
    client: httpx.Client, server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = says(server, "One two")
    monkeypatch.setattr(response, "Pings", partial(Pings, wait=0.02))
    monkeypatch.setattr(engine, "_delay", 0.05)
    answer = client.post(PATH, json=body(stream=True)).text
    assert answer.startswith('event: ping\ndata: {"type":"ping"}\n\n')
    assert 'ping"}\n\nevent: message_start' in answer
    assert answer.endswith('{"type":"message_stop"}\n\n')


def test_models_in_anthropics_form(sdk: Anthropic, client: httpx.Client) -> None:
    names = [model.id for model in sdk.models.list()]
    assert names[0] == "able"
    assert {"able", "plain"} <= set(names)
    paged = [model.id for model in sdk.models.list(limit=1)]
    assert paged == names
    page = sdk.models.list(before_id=names[2], limit=1)
    assert ([model.id for model in page.data], page.has_more, page.first_id) == ([names[1]], True, names[1])
    one = sdk.models.retrieve("able")
    assert (one.type, one.id, one.max_input_tokens, one.created_at.year > 2000) == (
        "model",
        "able",
        2048,
        True,
    )
    with pytest.raises(anthropic.NotFoundError) as missing:
        sdk.models.retrieve("nope")
    assert missing.value.type == "not_found_error"
    headers = {"anthropic-version": "2023-06-01"}
    refused = client.get("/v1/models", params={"limit": "x"}, headers=headers)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "limit")
    assert "object" in client.get("/v1/models").json()
