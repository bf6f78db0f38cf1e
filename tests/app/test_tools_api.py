"""Tools, reasoning, structure and adapters on the wire, with a fake engine that says what it is told."""

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

from engines.base import Engine, Structure
from engines.fake import FakeEngine
from engines.load_spec import LoadSpec
from engines.progress import Progress
from engines.registry import ENGINES
from support.marks import MarkReader
from support.server import LiveServer, live_server

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
ALL = ("chat", "completion", "tools", "reasoning", "structured", "adapters")
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
CLOCK = {"type": "function", "function": {"name": "get_time"}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
CATALOG = """
models:
  - name: able
    engine: fake
    adapters: [{name: Pirate, path: adapters/pirate}]
  - name: plain
    engine: fake
    adapters: [{name: sailor, path: adapters/sailor}]
"""


async def load_fake(spec: LoadSpec, progress: Progress | None) -> Engine:
    if spec.name == "able":
        return FakeEngine(spec.name, capabilities=ALL, make_reader=MarkReader)
    return FakeEngine(spec.name)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    base: Path = tmp_path_factory.mktemp("models")
    (base / "models.yaml").write_text(CATALOG)
    modes = {"inference_mode": "multi_instance", "max_concurrent_models": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, "fake", replace(ENGINES["fake"], opener=lambda: load_fake))
        with live_server(model_base_path=base, default_model="able", **modes) as server:
            yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def sdk(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def engine(server: LiveServer, answer: str) -> FakeEngine:
    """The able engine, which will say ``answer``."""
    found = server.engine("able")
    assert isinstance(found, FakeEngine)
    found.answer = answer
    return found


def post(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post(CHAT, json={"model": "able", "messages": QUESTION, "temperature": 0, **fields})


def choice(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = post(client, **fields)
    assert response.status_code == 200, response.text
    return dict(response.json()["choices"][0])


def refusal(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


def deltas(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    lines = [line for line in post(client, stream=True, **fields).text.split("\n\n") if line]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines]


def test_a_whole_answer_with_all_parts(client: httpx.Client, server: LiveServer) -> None:
    engine(server, '~I need it.^Let me look. @get_weather${"city": "Paris"}@get_time${}')
    found = choice(client, tools=[WEATHER, CLOCK])
    message = found["message"]
    assert (message["reasoning_content"], message["content"]) == ("I need it.", "Let me look. ")
    assert message["reasoning"] == message["reasoning_content"]
    functions = [call["function"] for call in message["tool_calls"]]
    assert functions == [
        {"name": "get_weather", "arguments": '{"city": "Paris"}'},
        {"name": "get_time", "arguments": "{}"},
    ]
    ids = [call["id"] for call in message["tool_calls"]]
    assert all(each.startswith("call_") for each in ids)
    assert len(set(ids)) == 2
    assert found["finish_reason"] == "tool_calls"


def test_content_is_null_if_there_are_only_calls(client: httpx.Client, server: LiveServer) -> None:
    engine(server, "@get_time${}")
    message = choice(client, tools=[CLOCK])["message"]
    assert message["content"] is None
    assert "reasoning_content" not in message


def test_an_answer_without_calls_just_stops(client: httpx.Client, server: LiveServer) -> None:
    engine(server, "It is sunny.")
    found = choice(client, tools=[CLOCK])
    assert found["message"] == {"role": "assistant", "content": "It is sunny.", "refusal": None}
    assert found["finish_reason"] == "stop"


def test_a_call_that_is_cut_off_says_so(client: httpx.Client, server: LiveServer) -> None:
    engine(server, '@get_weather${"city": "Paris"}')
    assert choice(client, tools=[WEATHER], max_tokens=8)["finish_reason"] == "length"


def test_streamed_parts_come_in_order(client: httpx.Client, server: LiveServer) -> None:
    engine(server, '~Hm.^Well. @get_weather${"city": "Paris"}')
    events = deltas(client, tools=[WEATHER])
    parts = [event["delta"] for event in events]
    assert parts[0] == {"role": "assistant", "content": None}
    assert parts[-1] == {}
    assert [event["finish_reason"] for event in events[-2:]] == [None, "tool_calls"]
    for name in ("reasoning_content", "reasoning"):
        assert "".join(part.get(name, "") for part in parts) == "Hm."
    assert "".join(part.get("content") or "" for part in parts) == "Well. "
    calls = [call for part in parts for call in part.get("tool_calls", ())]
    assert set(calls[0]) == {"index", "id", "type", "function"}
    assert calls[0]["function"]["name"] == "get_weather"
    assert all(call == {"index": 0, "function": call["function"]} for call in calls[1:])
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city": "Paris"}'


def test_every_answer_of_several_has_a_parser_of_its_own(client: httpx.Client, server: LiveServer) -> None:
    engine(server, "~Hm.^Well. @get_time${}")
    response = post(client, tools=[CLOCK], n=3)
    messages = [choice["message"] for choice in response.json()["choices"]]
    assert [m["content"] for m in messages] == ["Well. "] * 3
    assert len({m["tool_calls"][0]["id"] for m in messages}) == 3


def test_reasoning_is_told_apart_without_being_asked(client: httpx.Client, server: LiveServer) -> None:
    engine(server, "~Let me think.^Yes.")
    message = choice(client)["message"]
    assert (message["reasoning_content"], message["content"]) == ("Let me think.", "Yes.")
    untold = choice(client, include_reasoning=False)["message"]
    assert ("reasoning_content" in untold, untold["content"]) == (False, "Yes.")
    told = [each["delta"] for each in deltas(client, include_reasoning=False)]
    assert not any("reasoning_content" in each for each in told)
    assert "".join(each.get("content") or "" for each in told) == "Yes."


def test_logprobs_come_with_content_only(client: httpx.Client, server: LiveServer) -> None:
    engine(server, "~a b@get_time${}")
    assert choice(client, tools=[CLOCK], logprobs=True)["logprobs"] is None
    assert all(event["logprobs"] is None for event in deltas(client, tools=[CLOCK], logprobs=True))
    engine(server, "c d")
    found = choice(client, tools=[CLOCK], logprobs=True)
    assert [entry["token"] for entry in found["logprobs"]["content"]] == ["c", " d"]
    streamed = [event["logprobs"] for event in deltas(client, tools=[CLOCK], logprobs=True)]
    tokens = [entry["token"] for each in streamed if each for entry in each["content"]]
    assert tokens == ["c", " d"]


def test_only_one_call_if_they_must_not_be_parallel(client: httpx.Client, server: LiveServer) -> None:
    engine(server, "@get_time${}@get_time${}")
    assert len(choice(client, tools=[CLOCK])["message"]["tool_calls"]) == 2
    assert len(choice(client, tools=[CLOCK], parallel_tool_calls=False)["message"]["tool_calls"]) == 1


def test_the_named_function_is_forced(client: httpx.Client, server: LiveServer) -> None:
    fake = engine(server, '~Hm.^{"city": "Paris"}')
    found = choice(client, tools=[WEATHER, CLOCK], tool_choice=NAMED)
    assert fake.last_request is not None
    assert fake.last_request.structure == Structure("json_schema", json.dumps(PARAMETERS))
    (call,) = found["message"]["tool_calls"]
    assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert (found["message"]["content"], found["message"]["reasoning_content"]) == (None, "Hm.")
    assert found["finish_reason"] == "stop"  # as OpenAI says


def test_some_call_is_required(client: httpx.Client, server: LiveServer) -> None:
    calls = [{"name": "get_weather", "parameters": {"city": '}"]'}}, {"name": "get_time", "parameters": {}}]
    fake = engine(server, json.dumps(calls))
    fields = {"tools": [WEATHER, CLOCK], "tool_choice": "required"}
    found = choice(client, **fields)
    functions = [call["function"] for call in found["message"]["tool_calls"]]
    assert [(f["name"], json.loads(f["arguments"])) for f in functions] == [
        (call["name"], call["parameters"]) for call in calls
    ]
    assert found["finish_reason"] == "tool_calls"
    assert fake.last_request is not None
    assert fake.last_request.structure is not None
    schema = json.loads(fake.last_request.structure.value)
    assert (schema["type"], schema["minItems"]) == ("array", 1)
    assert "maxItems" not in schema
    choice(client, **fields, parallel_tool_calls=False)
    assert json.loads(fake.last_request.structure.value)["maxItems"] == 1


def test_with_the_choice_none_tools_are_not_used(client: httpx.Client, server: LiveServer) -> None:
    engine(server, "Hello.")
    assert choice(client, tools=[WEATHER], tool_choice="none")["message"]["content"] == "Hello."
    assert post(client, model="plain", tools=[WEATHER], tool_choice="none").status_code == 200


def test_messages_of_earlier_calls_reach_the_template(client: httpx.Client, server: LiveServer) -> None:
    fake = engine(server, "Sunny.")
    seen: list[dict[str, Any]] = []
    render = fake.render_chat

    async def spy(messages: Any, **others: Any) -> Any:
        seen.extend(messages)
        return await render(messages, **others)

    fake.render_chat = spy  # type: ignore[method-assign]
    function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    messages = [
        *QUESTION,
        {
            "role": "assistant",
            "content": None,
            "reasoning": "Hm.",
            "tool_calls": [{**call, "index": 0}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sunny"}]},
    ]
    try:
        assert choice(client, messages=messages, tools=[WEATHER])["message"]["content"] == "Sunny."
    finally:
        fake.render_chat = render  # type: ignore[method-assign]
    assert seen[1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [call],
        "reasoning_content": "Hm.",
        "reasoning": "Hm.",
    }
    assert seen[2] == {"role": "tool", "content": "sunny", "tool_call_id": "call_1"}


@pytest.mark.parametrize(
    ("fields", "structure"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Structure("json_object")),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": PARAMETERS}}},
            Structure("json_schema", json.dumps(PARAMETERS), strict=False),
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": PARAMETERS, "strict": True},
                }
            },
            Structure("json_schema", json.dumps(PARAMETERS)),
        ),
        (
            {"response_format": {"type": "json_object", "schema": PARAMETERS}},
            Structure("json_schema", json.dumps(PARAMETERS), strict=False),
        ),
        ({"structured_outputs": {"json": PARAMETERS}}, Structure("json_schema", json.dumps(PARAMETERS))),
        ({"structured_outputs": {"regex": "[0-9]+"}}, Structure("regex", "[0-9]+")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, Structure("choice", choices=("a", "b"))),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, Structure("grammar", 'root ::= "a"')),
    ],
)
def test_structures_reach_the_engine(
    client: httpx.Client, server: LiveServer, fields: dict[str, Any], structure: Structure | None
) -> None:
    fake = engine(server, "{}")
    assert choice(client, **fields)["message"]["content"] == "{}"
    assert fake.last_request is not None
    assert fake.last_request.structure == structure


def test_plain_completions_have_structures_too(client: httpx.Client, server: LiveServer) -> None:
    fake = engine(server, "a")
    body = {"model": "able", "prompt": "x", "structured_outputs": {"choice": ["a"]}}
    assert client.post("/v1/completions", json=body).json()["choices"][0]["text"] == "a"
    assert fake.last_request is not None
    assert fake.last_request.structure == Structure("choice", choices=("a",))
    refused = client.post("/v1/completions", json={**body, "model": "plain"})
    assert refusal(refused) == (400, "unsupported_feature", "structured_outputs")
    refused = client.post("/v1/completions", json={"model": "able", "prompt": "x", "suffix": "y"})
    assert refusal(refused) == (400, "unsupported_feature", "suffix")


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_an_adapter_is_a_model_by_its_name(client: httpx.Client, server: LiveServer, path: str) -> None:
    fake = engine(server, "Arr.")
    body = {"messages": QUESTION} if path == CHAT else {"prompt": "Hello"}
    response = client.post(path, json={"model": "pirate", **body})
    assert response.json()["model"] == "able:Pirate"
    assert fake.last_request is not None
    assert fake.last_request.adapter == "Pirate"
    assert client.post(path, json={"model": "able", **body}).json()["model"] == "able"
    assert fake.last_request.adapter is None
    refused = client.post(path, json={"model": "sailor", **body})
    assert refusal(refused) == (400, "unsupported_feature", "model")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [WEATHER]}, "tools"),
        ({"tools": [WEATHER], "tool_choice": "required"}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_without_a_feature_refuses_it(
    client: httpx.Client, fields: dict[str, Any], param: str, stream: bool
) -> None:
    response = post(client, model="plain", stream=stream, **fields)
    assert refusal(response) == (400, "unsupported_feature", param)
    message = response.json()["error"]["message"]
    assert message.startswith("model plain runs on the fake engine, which has no ")
    assert ": load it with vLLM" in message


def function(**fields: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", **fields}}]}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"a": schema}
    return schema


def assistant(call: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [*QUESTION, {"role": "assistant", "tool_calls": [call], **fields}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": "get_weather"}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools.0.type"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [WEATHER, CLOCK, WEATHER]}, "tools"),
        ({"tools": [function(name=f"f{i}")["tools"][0] for i in range(129)]}, "tools"),
        (function(name="with space"), "tools.0.function.name"),
        (function(name="x" * 65), "tools.0.function.name"),
        (function(parameters=[]), "tools.0.function.parameters"),
        (function(parameters={"type": "string"}), "tools.0.function.parameters"),
        (function(parameters=nested(60)), "tools.0.function.parameters"),
        (function(parameters={"maximum": float("inf")}), "tools.0.function.parameters"),
        ({**function(parameters={"$defs": 1}), "tool_choice": "required"}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": NAMED}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": "always"}, "tool_choice"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 1}}},
            "response_format.json_schema.schema",
        ),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"regex": "\ud800"}}, "structured_outputs.regex"),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "response_format",
        ),
        (
            {"structured_outputs": {"regex": "a"}, "tools": [CLOCK], "tool_choice": "required"},
            "structured_outputs",
        ),
        (assistant({"type": "function"}), "messages.1.tool_calls.0.id"),
        (
            assistant({"id": "1", "function": {"name": "f", "arguments": "{}"}}, role="user", content="x"),
            "messages.1.tool_calls",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": [{"role": "tool", "tool_call_id": "1"}]}, "messages.0.content"),
    ],
)
def test_malformed_wishes_are_named(client: httpx.Client, fields: dict[str, Any], param: str) -> None:
    body = {"model": "able", "messages": QUESTION, **fields}
    response = client.post(CHAT, content=json.dumps(body), headers={"content-type": "application/json"})
    assert refusal(response) == (400, "invalid_request_error", param)


def test_a_structure_goes_with_tools_that_may_be_called(client: httpx.Client, server: LiveServer) -> None:
    fake = engine(server, "{}")
    assert post(client, tools=[CLOCK], response_format={"type": "json_object"}).status_code == 200
    assert fake.last_request is not None
    assert fake.last_request.structure == Structure("json_object")


def test_a_structure_does_not_go_with_a_call_that_must_be(client: httpx.Client) -> None:
    response = post(client, tools=[CLOCK], tool_choice="required", structured_outputs={"regex": "a"})
    assert refusal(response) == (400, "invalid_request_error", "structured_outputs")


def test_definitions_of_one_name_must_be_equal(client: httpx.Client, server: LiveServer) -> None:
    fake = engine(server, "[]")

    def tool(name: str, city: Any) -> dict[str, Any]:
        parameters = {"properties": {"city": {"$ref": "#/$defs/City"}}, "$defs": {"City": city}}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    one, same, other = tool("a", {"enum": [1]}), tool("b", {"enum": [1]}), tool("b", {"enum": [2]})
    choice(client, tools=[one, same], tool_choice="required")
    assert fake.last_request is not None
    assert fake.last_request.structure is not None
    assert json.loads(fake.last_request.structure.value)["$defs"] == {"City": {"enum": [1]}}
    refused = post(client, tools=[one, other], tool_choice="required")
    assert refusal(refused) == (400, "invalid_request_error", "tools")


def test_the_sdk_gathers_streamed_calls(sdk: OpenAI, server: LiveServer) -> None:
    engine(server, '~Hm.^Well. @get_weather${"city": "Paris"}@get_time${}')
    with sdk.chat.completions.stream(
        model="able", messages=QUESTION, temperature=0, tools=[WEATHER, CLOCK]
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion().choices[0]
    assert final.message.content == "Well. "
    calls = final.message.tool_calls or []
    assert [call.function.name for call in calls] == ["get_weather", "get_time"]
    assert json.loads(calls[0].function.arguments) == {"city": "Paris"}
    assert final.finish_reason == "tool_calls"
    # What came can be sent back as it is.
    engine(server, "Sunny.")
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in calls]
    answer = sdk.chat.completions.create(
        model="able", messages=[*QUESTION, final.message, *results], tools=[WEATHER, CLOCK]
    )
    assert answer.choices[0].message.content == "Sunny."


class Weather(BaseModel):
    city: str
    degrees: float


def test_the_sdk_parses_what_it_asked_for(sdk: OpenAI, server: LiveServer) -> None:
    engine(server, '{"city": "Paris", "degrees": 21.5}')
    answer = sdk.beta.chat.completions.parse(
        model="able", messages=QUESTION, temperature=0, response_format=Weather
    )
    assert answer.choices[0].message.parsed == Weather(city="Paris", degrees=21.5)
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.beta.chat.completions.parse(model="plain", messages=QUESTION, response_format=Weather)
    assert refused.value.code == "unsupported_feature"
