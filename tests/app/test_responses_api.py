"""OpenAI's Responses API, by OpenAI's own client, with a fake engine that says what it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from engines.base import Engine
from engines.fake import FakeEngine
from engines.load_spec import LoadSpec
from engines.progress import Progress
from engines.registry import ENGINES
from support.marks import MarkReader
from support.server import LiveServer, live_server

ALL = ("chat", "completion", "tools", "reasoning", "structured")
PATH = "/v1/responses"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
CLOCK: Any = {"type": "function", "name": "get_time"}
PATCH: Any = {"type": "custom", "name": "apply_patch", "description": "Changes files."}


CODEX = Path(__file__).parent / "dialects/openai/responses/codex.json"


class Weather(BaseModel):
    city: str


async def load_fake(spec: LoadSpec, progress: Progress | None) -> Engine:
    return FakeEngine(spec.name, capabilities=ALL, make_reader=MarkReader)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    state: Path = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, "fake", replace(ENGINES["fake"], opener=lambda: load_fake))
        keys = frozenset({"one", "two"})
        with live_server(inference_engine="fake", state_dir=str(state), api_keys=keys) as server:
            yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer one"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def sdk(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="one", max_retries=0) as client:
        yield client


def says(server: LiveServer, answer: str) -> FakeEngine:
    found = server.engine()
    assert isinstance(found, FakeEngine)
    found.answer = answer
    return found


def events(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream, which must be as OpenAI's are."""
    answer = client.post(PATH, json={"stream": True, "input": "Hi", **fields})
    assert answer.status_code == 200, answer.text
    parts = [part for part in answer.text.split("\n\n") if part]
    assert parts.pop() == "data: [DONE]"
    found = []
    for part in parts:
        name, data = part.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    numbers = [event["sequence_number"] for event in found]
    assert numbers == [*range(len(found))]
    return found


def types(found: list[dict[str, Any]]) -> list[str]:
    """The types of events without the deltas that follow one of the same."""
    names = [event["type"].removeprefix("response.") for event in found]
    return [name for i, name in enumerate(names) if not i or names[i - 1] != name]


def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def test_events_come_in_order(server: LiveServer, client: httpx.Client) -> None:
    says(server, '~Hm.^Well. @get_weather${"city": "Paris"}@apply_patch${"input": "a\\n\\"b\\""}')
    found = events(client, tools=[WEATHER, PATCH])
    assert types(found) == [
        "created",
        "in_progress",
        *["output_item.added", "content_part.added", "reasoning_text.delta"],
        *["reasoning_text.done", "content_part.done", "output_item.done"],
        *["output_item.added", "content_part.added", "output_text.delta"],
        *["output_text.done", "content_part.done", "output_item.done"],
        *["output_item.added", "function_call_arguments.delta"],
        *["function_call_arguments.done", "output_item.done"],
        *["output_item.added", "custom_tool_call_input.delta"],
        *["custom_tool_call_input.done", "output_item.done"],
        "completed",
    ]
    added = [event for event in found if event["type"] == "response.output_item.added"]
    done = [event for event in found if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in added] == [0, 1, 2, 3]
    assert [event["item"]["id"] for event in added] == [event["item"]["id"] for event in done]
    assert [event["item"] for event in done] == found[-1]["response"]["output"]
    assert [item["status"] for item in found[-1]["response"]["output"]] == ["completed"] * 4
    for event in found:
        if "item_id" in event:
            assert event["item_id"] == added[event["output_index"]]["item"]["id"]
        if event["type"].startswith("response.output_text"):
            assert event["logprobs"] == []


@pytest.mark.parametrize(
    ("answer", "tools"),
    [
        ("Hello there.", []),
        ('~Hm.^Well. @get_weather${"city": "Paris"}@get_time${}', [WEATHER, CLOCK]),
        ('@apply_patch${"input": "*** Begin\\u00e9\\ud83d\\ude00"}^And so on.', [PATCH]),
        ("", []),
    ],
)
def test_a_stream_adds_up_to_the_whole_response(
    server: LiveServer, sdk: OpenAI, answer: str, tools: list[Any]
) -> None:
    says(server, answer or "^^")
    asked: dict[str, Any] = {"model": "fake", "input": "Hi", "tools": tools, "store": False}
    whole = sdk.responses.create(**asked)
    with sdk.responses.stream(**asked) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_response()
    assert without_ids(streamed.model_dump()) == without_ids(whole.model_dump())
    assert whole.output_text == "".join(
        part.text
        for item in whole.output
        if item.type == "message"
        for part in item.content
        if part.type == "output_text"
    )


def without_ids(value: Any) -> Any:
    """A response without what is another each time, and what the SDK puts into it itself."""
    if isinstance(value, dict):
        own = {"id", "call_id", "created_at", "completed_at", "parsed", "parsed_arguments"}
        return {k: without_ids(v) for k, v in value.items() if k not in own}
    return [without_ids(each) for each in value] if isinstance(value, list) else value


def test_text_is_parsed(server: LiveServer, sdk: OpenAI) -> None:
    fake = says(server, '{"city": "Paris"}')
    found = sdk.responses.parse(model="fake", input="Hi", text_format=Weather)
    assert found.output_parsed == Weather(city="Paris")
    assert fake.last_request is not None
    assert fake.last_request.structure is not None
    assert (fake.last_request.structure.kind, fake.last_request.structure.strict) == ("json_schema", True)
    assert found.text is not None
    assert found.text.format is not None
    assert found.text.format.type == "json_schema"
    sdk.responses.create(model="fake", input="Hi", text={"format": {"type": "json_object"}})
    assert fake.last_request.structure.kind == "json_object"


def test_a_conversation_with_tools(server: LiveServer, sdk: OpenAI) -> None:
    fake = says(server, '~Hm.^@get_weather${"city": "Paris"}')
    history: list[Any] = [{"role": "user", "content": "How is the weather?"}]
    first = sdk.responses.create(model="fake", input=history, tools=[WEATHER], instructions="Be brief.")
    (call,) = (item for item in first.output if item.type == "function_call")
    assert json.loads(call.arguments) == {"city": "Paris"}
    history += first.output
    history.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    fake.answer = "It is sunny."
    seen = rendered(fake)
    second = sdk.responses.create(model="fake", input=history, tools=[WEATHER], instructions="Be brief.")
    assert second.output_text == "It is sunny."
    function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert seen == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How is the weather?"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Hm.",
            "reasoning": "Hm.",
            "tool_calls": [{"id": call.call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call.call_id, "content": "sunny"},
    ]


def rendered(fake: FakeEngine) -> list[Any]:
    """The messages that the next chats are made of."""
    seen: list[Any] = []
    render = type(fake).render_chat

    async def spy(messages: Any, **others: Any) -> Any:
        seen[:] = messages
        return await render(fake, messages, **others)

    fake.render_chat = spy  # type: ignore[method-assign]
    return seen


def test_a_response_follows_another(server: LiveServer, sdk: OpenAI) -> None:
    fake = says(server, "Hello Alice.")
    first = sdk.responses.create(model="fake", input="I am Alice.", instructions="Be kind.")
    seen = rendered(fake)
    second = sdk.responses.create(model="fake", input="Who am I?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    texts = [(message["role"], message["content"]) for message in seen]
    assert texts == [("user", "I am Alice."), ("assistant", "Hello Alice."), ("user", "Who am I?")]
    events_of = sdk.responses.create(
        model="fake",
        input=[{"role": "user", "content": "Sure?"}],
        previous_response_id=second.id,
        stream=True,
    )
    last = [*events_of][-1]
    assert last.type == "response.completed"
    assert len(seen) == 5
    items = [*sdk.responses.input_items.list(last.response.id, limit=2, order="asc")]
    assert [(item.role, item.content[0].text) for item in items] == [  # type: ignore[union-attr]
        *[("user", "I am Alice."), ("assistant", "Hello Alice."), ("user", "Who am I?")],
        *[("assistant", "Hello Alice."), ("user", "Sure?")],
    ]
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    sdk.responses.create(model="fake", input=[reference, {"role": "user", "content": "And?"}])
    assert [message["content"] for message in seen] == ["Hello Alice.", "And?"]


def test_a_stored_response_is_its_owners(server: LiveServer, sdk: OpenAI) -> None:
    says(server, "Hello.")
    made = sdk.responses.create(model="fake", input="Hi", metadata={"a": "b"})
    assert sdk.responses.retrieve(made.id) == made
    other = sdk.with_options(api_key="two")
    for ask in (other.responses.retrieve, other.responses.delete, other.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            ask(made.id)
    with pytest.raises(openai.NotFoundError, match="belongs to another"):
        other.responses.create(model="fake", input="Hi", previous_response_id=made.id)
    with pytest.raises(openai.BadRequestError, match="in the background"):
        sdk.responses.cancel(made.id)
    sdk.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)
    unstored = sdk.responses.create(model="fake", input="Hi", store=False)
    assert unstored.model_dump()["store"] is False
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(unstored.id)


def test_counted_tokens_are_those_it_takes(server: LiveServer, sdk: OpenAI) -> None:
    says(server, "Hello.")
    first = sdk.responses.create(model="fake", input="I am Alice.")
    asked: dict[str, Any] = {
        "model": "fake",
        "instructions": "Be kind.",
        "input": [{"role": "user", "content": "Who am I?"}],
        "tools": [WEATHER],
        "previous_response_id": first.id,
    }
    counted = sdk.responses.input_tokens.count(**asked)
    usage = sdk.responses.create(**asked).usage
    assert usage is not None
    assert counted.input_tokens == usage.input_tokens
    assert counted.object == "response.input_tokens"


def test_an_answer_that_is_cut_is_incomplete(server: LiveServer, client: httpx.Client) -> None:
    says(server, "One two three four five.")
    last = events(client, max_output_tokens=3)[-1]
    assert last["type"] == "response.incomplete"
    response = last["response"]
    assert (response["status"], response["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )
    assert response["output"][-1]["status"] == "incomplete"
    assert response["completed_at"] is None


def test_log_probabilities(server: LiveServer, client: httpx.Client) -> None:
    says(server, "a b")
    include = ["message.output_text.logprobs"]
    found = events(client, include=include, top_logprobs=2)
    tokens = [e["token"] for event in found if "delta" in event for e in event["logprobs"]]
    (part,) = found[-1]["response"]["output"][0]["content"]
    assert [each["token"] for each in part["logprobs"]] == tokens == ["a", " b"]
    assert len(part["logprobs"][0]["top_logprobs"]) == 2
    assert found[-1]["response"]["top_logprobs"] == 2


def test_tools_in_a_namespace(server: LiveServer, client: httpx.Client) -> None:
    long = "x" * 70
    space = {
        "type": "namespace",
        "name": "mcp__files",
        "tools": [{**CLOCK, "name": "read"}, {**CLOCK, "name": long}],
    }
    fake = says(server, "@mcp__files__read${}")
    asked = {"input": "Hi", "tools": [space, {"type": "web_search"}], "tool_choice": "auto"}
    response = client.post(PATH, json=asked).json()
    (call,) = response["output"]
    assert (call["type"], call["namespace"], call["name"]) == ("function_call", "mcp__files", "read")
    assert [tool["type"] for tool in response["tools"]] == ["namespace"]
    names = shown_tools(fake)
    assert names[0] == "mcp__files__read"
    assert all(len(name) <= 64 for name in names)
    fake.answer = f"@{names[1]}${{}}"
    (call,) = client.post(PATH, json=asked).json()["output"]
    assert (call["namespace"], call["name"]) == ("mcp__files", long)
    seen = rendered(fake)
    client.post(PATH, json={**asked, "input": [call]})
    assert seen[0]["tool_calls"][0]["function"]["name"] == names[1]


def shown_tools(fake: FakeEngine) -> list[str]:
    assert fake.last_request is not None
    assert fake.last_request.answer is not None
    tools = fake.last_request.answer.tools
    return [] if tools is None else [each["function"]["name"] for each in tools.definitions]


@pytest.mark.parametrize(
    ("choice", "shown", "forced"),
    [
        ("none", [], False),
        ("auto", ["get_weather", "get_time"], False),
        ("required", ["get_weather", "get_time"], True),
        ({"type": "function", "name": "get_time"}, ["get_weather", "get_time"], True),
        ({"type": "allowed_tools", "mode": "auto", "tools": [CLOCK]}, ["get_time"], False),
        ({"type": "allowed_tools", "mode": "required", "tools": [CLOCK]}, ["get_time"], True),
    ],
)
def test_choices_of_tools(
    server: LiveServer, client: httpx.Client, choice: Any, shown: list[str], forced: bool
) -> None:
    fake = says(server, "{}" if isinstance(choice, dict) else "[]")
    answer = client.post(PATH, json={"input": "Hi", "tools": [WEATHER, CLOCK], "tool_choice": choice})
    assert answer.status_code == 200, answer.text
    assert answer.json()["tool_choice"] == choice
    request = fake.last_request
    assert request is not None
    assert request.answer is not None
    assert (request.structure is not None) == forced
    assert shown_tools(fake) == shown


def test_a_grammar_holds_where_its_tool_is_chosen(server: LiveServer, client: httpx.Client) -> None:
    tool = {**PATCH, "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "a"+'}}
    fake = says(server, "aaa")
    choice = {"type": "custom", "name": "apply_patch"}
    found = events(client, tools=[tool, WEATHER], tool_choice=choice)
    assert fake.last_request is not None
    assert fake.last_request.structure is not None
    assert fake.last_request.structure.value == 'start: "a"+'
    (item,) = found[-1]["response"]["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "apply_patch", "aaa")
    assert item["call_id"].startswith("call_")
    fake.answer = "Hi."
    assert client.post(PATH, json={"input": "Hi", "tools": [tool]}).json()["output"][0]["type"] == "message"
    assert fake.last_request.structure is None


REFUSED: list[tuple[dict[str, Any], str, str | None]] = [
    ({"background": True}, "unsupported_feature", "background"),
    ({"conversation": "conv_1"}, "unsupported_feature", "conversation"),
    ({"truncation": "auto"}, "unsupported_feature", "truncation"),
    ({"prompt": {"id": "p"}}, "unsupported_feature", "prompt"),
    ({"text": {"verbosity": "low"}}, "unsupported_feature", "text.verbosity"),
    ({"n": 2}, "unsupported_feature", "n"),
    (
        {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
        "unsupported_feature",
        "tool_choice",
    ),
    ({"tool_choice": "required"}, "invalid_request_error", "tool_choice"),
    ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "unsupported_feature", "input.0"),
    ({"input": [{"type": "item_reference", "id": "msg_x_0"}]}, "invalid_request_error", "input.0"),
    ({"input": []}, "invalid_request_error", "input"),
    ({"input": None}, "invalid_request_error", "input"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        "unsupported_feature",
        "input.0.content.0",
    ),
    ({"input": [{"role": "user"}]}, "invalid_request_error", "input.0.content"),
    ({"previous_response_id": "resp_no"}, "previous_response_not_found", "previous_response_id"),
    ({"previous_response_id": "\ud800"}, "previous_response_not_found", "previous_response_id"),
    ({"input": [{"type": ["message"], "role": "user"}]}, "unsupported_feature", "input.0"),
    ({"model": "\ud800"}, "model_not_found", None),
    ({"tools": [CLOCK, CLOCK]}, "invalid_request_error", "tools"),
    ({"tools": [{"name": "x"}]}, "invalid_request_error", "tools.0"),
    ({"metadata": {"a": 1}}, "invalid_request_error", "metadata.a"),
]


@pytest.mark.parametrize(("fields", "code", "param"), REFUSED, ids=str)
def test_what_is_refused(client: httpx.Client, fields: dict[str, Any], code: str, param: str | None) -> None:
    answer = client.post(PATH, content=json.dumps({"input": "Hi", **fields}))
    assert refusal(answer)[1:] == (code, param), answer.text
    assert answer.status_code == (404 if code.endswith("_not_found") else 400)


def test_conversations_are_not_served(client: httpx.Client) -> None:
    assert refusal(client.post("/v1/conversations", json={}))[:2] == (404, "unsupported_endpoint")
    compact = client.post(f"{PATH}/compact", json={})
    assert (compact.status_code, "there are POST /v1/responses" in compact.text) in [
        (404, True),
        (405, False),
    ]


def test_what_clients_always_send_is_accepted(server: LiveServer, client: httpx.Client) -> None:
    says(server, "Hello.")
    fields = {
        "include": ["reasoning.encrypted_content", "web_search_call.action.sources"],
        "prompt_cache_key": "k",
        "client_metadata": {"x": "y"},
        "service_tier": "auto",
        "truncation": "disabled",
        "background": False,
        "reasoning": {"summary": "auto"},
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "metadata": None,
        "user": "u",
        "context_management": None,
        "tools": [
            {"type": "web_search", "search_context_size": "low"},
            {"type": "local_shell"},
            {"type": "mcp", "server_label": "s", "server_url": "https://example.com"},
        ],
        "input": [
            {"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None, "content": None},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            {"type": "message", "role": "user", "content": "Hi", "id": "msg_1", "status": "completed"},
        ],
    }
    answer = client.post(PATH, json=fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-enginehouse-ignored"] == "input.web_search_call"
    found = answer.json()
    assert (found["prompt_cache_key"], found["user"], found["tools"]) == ("k", "u", [])


def test_reasoning_goes_through_a_client_that_keeps_only_what_is_sealed(
    server: LiveServer, client: httpx.Client
) -> None:
    fake = says(server, "~Hmé.^Yes.")
    first = client.post(PATH, json={"input": "Hi", "include": ["reasoning.encrypted_content"]}).json()
    (reasoning, _) = first["output"]
    sealed = {**reasoning, "content": None}
    seen = rendered(fake)
    client.post(PATH, json={"input": [sealed, {"role": "user", "content": "Why?"}]})
    assert seen[0] == {"role": "assistant", "content": "", "reasoning_content": "Hmé.", "reasoning": "Hmé."}


def test_what_codex_sends(server: LiveServer, client: httpx.Client) -> None:
    """A recorded task: each of its requests begins with all of the last one, as a prefix cache wants it."""
    requests = json.loads(CODEX.read_text())
    fake = says(server, '~Hm.^So. @multi_agent_v1__close_agent${"target": "a"}@exec_command${"cmd": "ls"}')
    before: list[Any] = []
    for request in requests:
        seen = rendered(fake)
        last = events(client, **request)[-1]
        assert last["type"] == "response.completed"
        output = last["response"]["output"]
        assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "function_call"]
        names = [(item.get("namespace"), item["name"]) for item in output[2:]]
        assert names == [("multi_agent_v1", "close_agent"), (None, "exec_command")]
        assert output[0]["encrypted_content"]
        assert [message["role"] for message in seen[:3]] == ["system", "user", "user"]
        assert seen[: len(before)] == before
        before = [*seen]
    roles = [message["role"] for message in before[3:]]
    assert roles == ["assistant", "tool", "assistant", "tool", "tool"]
    assert before[3]["reasoning_content"] == "I should make the file."


def test_a_failure_in_the_middle_is_told(server: LiveServer, client: httpx.Client) -> None:
    from engines.errors import EngineError

    fake = says(server, "One two three four")
    fake._delay = 0.005
    try:
        with client.stream("POST", PATH, json={"input": "Hi", "stream": True}) as answer:
            lines = answer.iter_lines()
            data = [
                json.loads(line[6:]) for line in (next(lines) for _ in range(12)) if line.startswith("data:")
            ]
            fake.fail_next = EngineError("it broke")
            data += [json.loads(line[6:]) for line in lines if line.startswith("data:")]
    finally:
        fake._delay = 0
    last = data[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "it broke"}
    assert (last["response"]["id"], last["response"]["status"]) == (data[0]["response"]["id"], "failed")
    numbers = [event["sequence_number"] for event in data]
    assert numbers == sorted(set(numbers))
