"""Fields that other servers add to OpenAI's API: met, or refused by name, never ignored."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from app.dialects.openai.chat.schema import ChatCompletionRequest
from app.dialects.openai.completions.schema import CompletionRequest
from app.dialects.openai.dialect import CHAT, COMPLETIONS
from app.dialects.openai.peers import asked_capabilities
from app.inference import capabilities
from app.inference.dialect import AnswerContext, GeneratingDialect
from app.inference.targets import Resolved
from app.inference.task import Task
from balancer.call import ResumePoint, Target
from engines.base import Chunk, EngineInfo, Prompt, Rendering, Structure, Usage
from engines.errors import RequestError, UnsupportedFeature
from engines.models.catalog import SamplingDefaults
from engines.registry import ENGINES

USER = {"role": "user", "content": "Hello"}
BEGUN = {"role": "assistant", "content": "1. Red\n2."}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat(messages: list[dict[str, Any]] | None = None, **fields: Any) -> Task:
    body = {"model": "m", "messages": messages or [USER], **fields}
    return CHAT.parse(body, lambda name: Resolved(Target(name)))


def complete(**fields: Any) -> Task:
    return COMPLETIONS.parse({"model": "m", "prompt": "a", **fields}, lambda name: Resolved(Target(name)))


def rendering(*messages: dict[str, Any], **fields: Any) -> Rendering:
    return chat([USER, *messages], **fields).rendering


def info(engine: str) -> EngineInfo:
    return EngineInfo(engine, "m", 512, 8, ("cpu",), ENGINES[engine].capabilities)


def refused(task: Task, engine: str = "llama_cpp") -> str | None:
    """The field that ``engine`` refuses a task for."""
    try:
        capabilities.check(task.needs, info(engine))
    except UnsupportedFeature as error:
        return error.param
    return None


@pytest.mark.parametrize("parse", [chat, complete])
def test_what_engines_take_reaches_them(parse: Any) -> None:
    task = parse(
        repeat_penalty=1.2,
        typical_p=0.5,
        stop_token_ids=[1, 2],
        include_stop_str_in_output=True,
        skip_special_tokens=False,
        bad_words=["a"],
        allowed_token_ids=[3],
        min_tokens=2,
        return_token_ids=True,
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
    )
    assert (task.sampling.repetition_penalty, task.sampling.typical_p) == (1.2, 0.5)
    assert (task.sampling.bad_words, task.sampling.allowed_token_ids) == (("a",), (3,))
    assert (task.stop_token_ids, task.include_stop, task.show_special) == ((1, 2), True, True)
    assert (task.min_tokens, task.tell_token_ids, task.continuous_usage) == (2, True, True)


def test_without_them_nothing_changes() -> None:
    plain = Task(target=Target("m"), messages=({"role": "user", "content": "Hello"},))
    assert chat() == plain
    assert complete() == replace(plain, messages=None, prompts=("a",), max_tokens=16)
    assert complete(add_special_tokens=False).add_special is False


def test_other_names_are_the_fields_they_name() -> None:
    assert complete(n_predict=5).max_tokens == 5
    assert complete(num_predict=-1).max_tokens is None
    assert chat(n_predict=5).max_tokens == 5
    assert chat(repeat_penalty=1.5, repetition_penalty=1.5).sampling.repetition_penalty == 1.5
    for fields in ({"repeat_penalty": 2, "repetition_penalty": 1.5}, {"n_predict": 5, "max_tokens": 6}):
        with pytest.raises(ValidationError, match="another name"):
            chat(**fields)


def test_a_default_of_the_catalog_does_not_count_beside_another_name() -> None:
    known = Resolved(Target("m"), SamplingDefaults(repetition_penalty=1.1, max_tokens=9))
    body = {"model": "m", "prompt": "a", "repeat_penalty": 1.3, "n_predict": 5}
    task = COMPLETIONS.parse(body, lambda name: known)
    assert (task.sampling.repetition_penalty, task.max_tokens) == (1.3, 5)
    assert task.defaults == {}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"typical_p": 0}, "typical_p"),
        ({"typical_p": 1.5}, "typical_p"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"bad_words": [""]}, "bad_words"),
        ({"bad_words": [" "]}, "bad_words"),
        ({"bad_words": ["\ud800"]}, "bad_words"),
        ({"bad_words": ["a"] * 129}, "bad_words"),
        ({"n_predict": -2}, "n_predict"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": "[]"}, "guided_json"),
        ({"guided_json": "[" * 9999}, "guided_json"),
        ({"guided_choice": []}, "guided_choice"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a b": 1}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {f"a{i}": i for i in range(65)}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": "x" * 70_000}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": json.loads("[" * 60 + "]" * 60)}}, "chat_template_kwargs"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
    ],
)
def test_bad_values_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        chat(**fields)
    assert refusal.value.errors()[0]["loc"][0] == param


ASKING = {**asked_capabilities(ChatCompletionRequest), **asked_capabilities(CompletionRequest)}
VALUES: dict[str, Any] = {
    "typical_p": 0.5,
    "repeat_last_n": 64,
    "include_reasoning": False,
    "mirostat": 2,
    "xtc_probability": 0.5,
    "dynatemp_range": 0.5,
}


@pytest.mark.parametrize("field", ASKING)
def test_each_is_refused_by_name_where_an_engine_lacks_it(field: str) -> None:
    """Unless the value is neutral; and where the engine has it, it is not refused."""
    capability = ASKING[field].name or field
    assert capability in capabilities.FEATURES
    for schema, parse in ((ChatCompletionRequest, chat), (CompletionRequest, complete)):
        asks = asked_capabilities(schema).get(field)
        if asks is None:
            continue
        default = schema.model_fields[field].default
        penalty = {"repetition_penalty": 1.1} if asks.of else {}
        for engine, descriptor in ENGINES.items():
            task = parse(**penalty, **{field: VALUES.get(field, 7)})
            has = capability in descriptor.request_fields | descriptor.capabilities
            assert refused(task, engine) == (None if has else field)
            for value in (*asks.neutral, *([None] if default is None else [])):
                assert refused(parse(**penalty, **{field: value}), engine) is None


def test_fields_that_count_with_another_do_not_count_alone() -> None:
    alone = {"mirostat_tau": 5.0, "xtc_threshold": 0.1, "length_penalty": 2.0, "repeat_last_n": 64}
    assert chat(**alone).needs == {}


@pytest.mark.parametrize(
    ("fields", "structure"),
    [
        ({"guided_json": {"type": "object"}}, Structure("json_schema", '{"type": "object"}')),
        ({"guided_json": '{"type":"object"}'}, Structure("json_schema", '{"type": "object"}')),
        ({"json_schema": {"type": "object"}}, Structure("json_schema", '{"type": "object"}')),
        ({"guided_regex": "a+"}, Structure("regex", "a+")),
        ({"regex": "a+"}, Structure("regex", "a+")),
        ({"guided_choice": ["a", "b"]}, Structure("choice", choices=("a", "b"))),
        ({"guided_grammar": "root ::= a"}, Structure("grammar", "root ::= a")),
        ({"ebnf": "root ::= a"}, Structure("grammar", "root ::= a")),
        ({"grammar": "root ::= a"}, Structure("grammar", "root ::= a")),
    ],
)
@pytest.mark.parametrize("parse", [chat, complete])
def test_older_names_of_structures(fields: dict[str, Any], structure: Structure, parse: Any) -> None:
    task = parse(**fields)
    assert task.structure == structure
    assert refused(task, "vllm") is refused(task) is None
    assert refused(task, "fake") == next(iter(fields))
    with pytest.raises(RequestError, match="exclude each other"):
        parse(**fields, structured_outputs={"regex": "b"})


def test_a_refusal_says_what_to_install() -> None:
    has = ENGINES["llama_cpp"].capabilities - {"structured"}
    with pytest.raises(UnsupportedFeature, match="llguidance"):
        capabilities.check(
            {"structured": "response_format"}, EngineInfo("llama_cpp", "m", 512, 8, ("cpu",), has)
        )


def test_an_empty_grammar_is_none() -> None:
    task = chat(grammar="", response_format={"type": "json_object"})
    assert task.structure == Structure("json_object")


def test_long_lists_are_for_few_answers() -> None:
    """They are tokenised, or looked through, for each: on the event loop."""
    assert chat(bad_words=["a"] * 16, n=8)
    for fields in ({"bad_words": ["a"] * 17}, {"allowed_token_ids": [1] * (2**14 + 1)}):
        for parse, answers in ((chat, {"n": 8}), (complete, {"n": 2, "prompt": ["a"] * 4})):
            with pytest.raises(RequestError) as refusal:
                parse(**fields, **answers)  # type: ignore[operator]
            assert refusal.value.param == next(iter(fields))


def test_an_assistants_last_message_is_continued() -> None:
    going_on, new = Rendering(add_generation_prompt=False, continue_final=True), Rendering()
    assert rendering() == new
    assert rendering(BEGUN) == going_on
    assert rendering(BEGUN, continue_final_message=True) == going_on
    assert rendering(BEGUN, continue_final_message=True, add_generation_prompt=False) == going_on
    assert rendering(BEGUN, continue_final_message=False) == new
    assert rendering(BEGUN, add_generation_prompt=True) == new
    assert rendering(BEGUN, add_generation_prompt=False) == Rendering(add_generation_prompt=False)
    assert rendering(continue_final_message=True) == going_on
    calls = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert rendering(calls) == new
    for message, fields in ((BEGUN, {"add_generation_prompt": True}), (calls, {})):
        with pytest.raises(RequestError) as refusal:
            rendering(message, continue_final_message=True, **fields)
        assert refusal.value.param == "continue_final_message"


def test_the_templates_variables_are_passed_on() -> None:
    found = rendering(chat_template_kwargs={"enable_thinking": False}, reasoning_effort="low")
    assert found == Rendering({"enable_thinking": False}, "low")


def streamed(
    dialect: GeneratingDialect, task: Task, resume_point: ResumePoint | None = None
) -> list[dict[str, Any]]:
    prompt = Prompt((1, 2, 3), "abc")
    writer = dialect.writer(
        task, AnswerContext(answer_id="r", choices=1, prompts=[prompt], resume_point=resume_point)
    )
    last = Chunk("!", (7,), finish_reason="stop", usage=Usage(3, 4))
    chunks = (Chunk("a", (4,)), Chunk("", (5,)), Chunk("b", (6,)), last)
    data = writer.opening(0) + b"".join(writer.write(0, chunk) for chunk in chunks)
    frames = (data + writer.closing(Usage(3, 4))).decode().split("\n\n")
    return [json.loads(frame.removeprefix("data: ")) for frame in frames if frame[6:7] == "{"]


@pytest.mark.parametrize(("dialect", "parse"), [(CHAT, chat), (COMPLETIONS, complete)])
def test_streams_tell_tokens_and_counts(dialect: GeneratingDialect, parse: Any) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = streamed(dialect, parse(return_token_ids=True, stream=True, stream_options=options))
    opening, *rest = events[:-1]
    assert opening.get("prompt_token_ids", opening["choices"][0].get("prompt_token_ids")) == [1, 2, 3]
    assert [e["choices"][0]["token_ids"] for e in rest if e["choices"][0]["token_ids"]] == [
        [4],
        [5],
        [6],
        [7],
    ]
    assert [e["usage"]["completion_tokens"] for e in rest] == [1, 2, 3, 4, 4]
    assert {e["usage"]["prompt_tokens"] for e in events} == {3}
    resumed = streamed(dialect, parse(stream=True, stream_options=options), ResumePoint((8, 8), 0))
    assert [e["usage"]["completion_tokens"] for e in resumed[:2]] == [3, 5]
    assert all("token_ids" not in e["choices"][0] for e in resumed if e["choices"])
