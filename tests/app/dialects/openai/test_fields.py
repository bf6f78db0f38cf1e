"""The fields of requests: nulls, those of OpenAI that do nothing, and those that nobody knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.chat.chat_completion_stream_options_param import ChatCompletionStreamOptionsParam

import app.main  # every schema
from app.dialects.openai.chat import parse as chat
from app.dialects.openai.chat.schema import ChatCompletionRequest
from app.dialects.openai.completions import parse as completions
from app.dialects.openai.completions.schema import CompletionRequest
from app.dialects.openai.responses import parse as responses
from app.dialects.openai.responses.schema import ResponseRequest
from app.dialects.openai.sampling import StreamOptions
from app.inference.targets import Resolved
from app.inference.task import Task
from app.schemas.common import StrictModel, WireModel
from app.schemas.unknown_fields import MOST_UNKNOWN
from balancer.call import Target
from engines.errors import UnsupportedFeature

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
TEXT: dict[str, Any] = {"model": "m", "prompt": "Hi"}
RESPONSE: dict[str, Any] = {"model": "m", "input": "Hi"}
MESSAGE: dict[str, Any] = CHAT
URL = {"type": "url", "url": "https://example.org/a.png"}
TEXT_SOURCE = {"type": "text", "data": "a"}
# Of schemas, what their fields' types do not tell.
NEEDED: dict[str, dict[str, Any]] = {
    "ChatCompletionRequest": CHAT,
    "CompletionRequest": TEXT,
    "RerankRequest": {"documents": ["a"]},
    "TeiRequest": {"texts": ["a"]},
    "DetokenizeRequest": {"tokens": []},
    "StructuredOutputs": {"regex": "a"},
    "StrategyRequest": {"strategy": "random"},
    "ServedFields": {"model": "m"},
    "JsonSchemaFormat": {"json_schema": {"name": "n", "schema": {}}},
    "Tool": {"function": {"name": "f"}},
    "NamedToolChoice": {"function": {"name": "f"}},
    "ToolCall": {"id": "1", "function": {"name": "f", "arguments": "{}"}},
    "NamedSchema": {"name": "n", "schema": {}},
    "SchemaFormat": {"schema": {}},
    "NamespaceTool": {"tools": []},
    "CountTokensRequest": MESSAGE,
    "MessagesRequest": {**MESSAGE, "max_tokens": 1},
    "OutputFormat": {"schema": {}},
    "ImageBlock": {"source": URL},
    "DocumentBlock": {"source": TEXT_SOURCE},
    "SearchResultBlock": {"content": []},
    "ToolUseBlock": {"input": {}},
    "OllamaCalledFunction": {"arguments": {}},
    "OllamaToolCall": {"function": {"name": "f", "arguments": {}}},
    "OllamaNamed": {"model": "m", "name": "m"},
    "OllamaShowRequest": {"model": "m", "name": "m"},
    "OllamaPullRequest": {"model": "m", "name": "m"},
    "ToolChange": {"tool": {"type": "tool_reference", "name": "t"}},
}


def parsed(**fields: Any) -> Task:
    return chat.parse({**CHAT, **fields}, lambda name: Resolved(Target(name, None, name)))


def completed(**fields: Any) -> Task:
    return completions.parse({**TEXT, **fields}, lambda name: Resolved(Target(name, None, name)))


def responded(**fields: Any) -> Task:
    return responses.parse({**RESPONSE, **fields}, lambda name: Resolved(Target(name, None, name)))


def schemas(base: type[WireModel] = WireModel) -> Iterator[type[WireModel]]:
    for each in base.__subclasses__():
        yield each
        yield from schemas(each)


def least(schema: type[WireModel]) -> dict[str, Any]:
    """The least that ``schema`` accepts."""
    needed = dict(NEEDED.get(schema.__name__, {}))
    for name, field in schema.model_fields.items():
        if field.is_required():
            literal = get_origin(field.annotation) is Literal
            needed.setdefault(field.alias or name, get_args(field.annotation)[0] if literal else "a")
    return needed


OPTIONAL = [
    pytest.param(schema, field.alias or name, id=f"{schema.__name__}-{name}")
    for schema in dict.fromkeys(schemas())
    if schema is not StrictModel
    for name, field in schema.model_fields.items()
    if not field.is_required() and name not in schema.null_counts
]


@pytest.mark.parametrize(("schema", "field"), OPTIONAL)
def test_null_is_as_good_as_not_given(schema: type[WireModel], field: str) -> None:
    without = least(schema)
    without.pop(field, None) if schema.__name__ != "StructuredOutputs" else None
    if field in without:
        return  # it needs one of them
    left_out, null = schema.model_validate(without), schema.model_validate({**without, field: None})
    assert null == left_out
    assert null.model_fields_set == left_out.model_fields_set


def test_all_fields_null_at_once_ask_for_the_same() -> None:
    for schema, parse, required in (
        (ChatCompletionRequest, parsed, CHAT),
        (CompletionRequest, completed, TEXT),
        (ResponseRequest, responded, RESPONSE),
    ):
        names = schema.model_fields.keys() - required.keys() - schema.null_counts
        assert len(names) > 20
        assert parse(**dict.fromkeys(names), **{"unheard-of": None}) == parse()


@pytest.mark.parametrize("role", ["user", "assistant", "tool"])
def test_nulls_in_messages_say_nothing(role: str) -> None:
    plain: dict[str, Any] = {"role": role, "content": "x"}
    if role == "tool":
        plain["tool_call_id"] = "1"
    fields = ("name", "tool_calls", "refusal", "audio", "function_call", "reasoning_content", "annotations")
    assert parsed(messages=[{**plain, **dict.fromkeys(fields)}]) == parsed(messages=[plain])
    streamed = {"stream": True, "stream_options": {"include_usage": None}}
    assert parsed(**streamed) == parsed(stream=True)


def test_where_null_says_something() -> None:
    calls = [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]
    [message] = parsed(messages=[{"role": "assistant", "content": None, "tool_calls": calls}]).messages or ()
    assert message["content"] is None
    [message] = parsed(messages=[{"role": "assistant", "content": None}]).messages or ()
    assert message["content"] == ""
    assert (completed().max_tokens, completed(max_tokens=None).max_tokens) == (16, None)


@pytest.mark.parametrize("parse", [parsed, completed])
def test_minus_one_is_no_limit(parse: Callable[..., Task]) -> None:
    assert parse(max_tokens=-1).max_tokens is None


@pytest.mark.parametrize(
    ("schema", "theirs"),
    [
        (ChatCompletionRequest, chat_params.CompletionCreateParamsStreaming),
        (CompletionRequest, text_params.CompletionCreateParamsStreaming),
        (StreamOptions, ChatCompletionStreamOptionsParam),
    ],
)
def test_openais_fields_are_known(schema: type[WireModel], theirs: type[Any]) -> None:
    assert theirs.__required_keys__ | theirs.__optional_keys__ <= schema.model_fields.keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metadata", {"a": "b"}),
        ("modalities", ["text"]),
        ("prediction", {"type": "content", "content": "x"}),
        ("prompt_cache_key", "k"),
        ("prompt_cache_options", {"mode": "explicit"}),
        ("prompt_cache_retention", "24h"),
        ("safety_identifier", "s"),
        ("service_tier", "flex"),
        ("store", True),
        ("user", "u"),
        ("verbosity", "medium"),
        ("functions", []),
        ("function_call", "none"),
        (
            "messages",
            [{"role": "user", "content": [{"type": "text", "text": "Hi", "prompt_cache_breakpoint": {}}]}],
        ),
        ("stream_options", {"include_obfuscation": False}),
    ],
)
def test_what_changes_no_answer_is_accepted(name: str, value: Any) -> None:
    assert parsed(**{"stream": True, name: value}) == parsed(stream=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("audio", {"voice": "alloy"}),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("modalities", ["text", "audio"]),
        ("moderation", {"model": "omni-moderation-latest"}),
        ("verbosity", "low"),
        ("web_search_options", {}),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UnsupportedFeature, match=name) as refusal:
        parsed(**{name: value})
    assert refusal.value.param == name


def test_fields_that_nobody_knows_are_found_at_whatever_depth_and_taken_out() -> None:
    function = {"name": "f", "x": 1, "parameters": {"type": "object", "any": None}}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}", "x": 1}, "x": 1}
    asked = {
        "x": 1,
        "null": None,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {}}]},
            {"role": "assistant", "tool_calls": [call], "y": 1},
            {"role": "tool", "content": "1", "tool_call_id": "1", "y": 1},
        ],
        "tools": [{"type": "function", "function": function, "strict": True}],
        "response_format": {"type": "text", "x": {"deep": 1}},
        "stream": True,
        "stream_options": {"x": 1},
    }
    task = parsed(**asked)
    assert {field.name: field.place for field in task.unknown} == {
        "x": "x",
        "messages.content.cache_control": "messages.0.content.0.cache_control",
        "messages.tool_calls.x": "messages.1.tool_calls.0.x",
        "messages.tool_calls.function.x": "messages.1.tool_calls.0.function.x",
        "messages.y": "messages.1.y",
        "tools.strict": "tools.0.strict",
        "tools.function.x": "tools.0.function.x",
        "response_format.x": "response_format.x",
        "stream_options.x": "stream_options.x",
    }
    assert task.tools is not None
    [definition] = task.tools.definitions
    assert definition == {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "any": None}},
    }
    assert task.messages is not None
    assert task.messages[1]["tool_calls"] == [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]


def test_of_many_unknown_fields_some_are_told() -> None:
    assert len(parsed(**{f"x{i}": 1 for i in range(1000)}).unknown) == MOST_UNKNOWN


def test_who_manages_the_server_is_told_of_a_typo() -> None:
    of_operators = [each for each in schemas() if each.__module__.startswith("app.schemas.")]
    assert len(of_operators) > 5
    assert app.main
    for schema in of_operators:
        assert issubclass(schema, StrictModel), schema
        assert schema.model_config["extra"] == "forbid"
