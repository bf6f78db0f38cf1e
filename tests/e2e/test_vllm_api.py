"""The API on a real vLLM: tools, structure and all that only this engine has."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from support.models import smollm2, smollm2_folder
from support.server import LiveServer, live_server, wait_until
from support.shapes import check_same, shapes

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM"),
    pytest.mark.timeout(400),
]

MODEL = "tiny"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
# The default model is a fake, so that the real one is loaded by the first request for it.
CATALOG = """
models:
  - name: nobody
    engine: fake
  - name: tiny
    path: tiny
    engine: vllm
    context_length: 1024
    slots: 4
    kv_cache_tokens: 4096
    threads: 2
    options: {enforce_eager: true}
  - name: other
    path: other.gguf
    context_length: 1024
    slots: 4
    kv_cache_tokens: 4096
    threads: 1
"""
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2, 3]}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    base = tmp_path_factory.mktemp("models")
    (base / "models.yaml").write_text(CATALOG)
    _place(smollm2_folder(), base / MODEL)
    shutil.copy(smollm2(), base / "other.gguf")
    modes = {"inference_mode": "multi_instance", "max_concurrent_models": 3, "load_timeout": 300}
    with live_server(model_base_path=base, default_model="nobody", **modes) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=350) as client:
        yield client


def _place(source: Path, target: Path) -> None:
    target.mkdir()
    for file in source.iterdir():
        try:
            os.link(file, target / file.name)
        except OSError:  # another file system
            shutil.copy(file, target / file.name)


def ask(client: OpenAI, **fields: Any) -> Any:
    given = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 60}
    return client.chat.completions.create(**{**given, **fields})


def test_streamed_and_whole_say_the_same(client: OpenAI) -> None:
    whole = ask(client, max_tokens=24)
    text = whole.choices[0].message.content
    # What it says depends on the processor's kernels for bfloat16.
    assert text.strip()
    assert whole.model == MODEL
    stream = ask(client, max_tokens=24, stream=True, stream_options={"include_usage": True})
    events = list(stream)
    assert "".join(e.choices[0].delta.content or "" for e in events if e.choices) == text
    assert events[-1].usage == whole.usage.model_copy(
        update={"prompt_tokens_details": events[-1].usage.prompt_tokens_details}
    )
    assert whole.usage.completion_tokens <= 24


class City(BaseModel):
    name: str
    capital: bool


def test_a_parsed_answer_is_the_model_that_was_asked_for(client: OpenAI) -> None:
    answer = client.beta.chat.completions.parse(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=200, response_format=City
    )
    assert isinstance(answer.choices[0].message.parsed, City)


def test_any_json_object(client: OpenAI) -> None:
    limits = {
        "type": "object",
        "properties": {"n": {"enum": [1, 2]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": limits, "strict": True}}
    streamed = ask(client, response_format=schema, stream=True)
    text = "".join(event.choices[0].delta.content or "" for event in streamed)
    assert json.loads(text)["n"] in (1, 2)
    free = ask(client, response_format={"type": "json_object"}, max_tokens=8)
    assert free.choices[0].message.content.lstrip().startswith("{")


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({"choice": ["positive", "negative"]}, lambda text: text in ("positive", "negative")),
        ({"regex": r"[0-9]{3}-[0-9]{2}"}, lambda text: len(text) == 6 and text[3] == "-"),
        ({"json": {"enum": ["a", "b"]}}, lambda text: json.loads(text) in ("a", "b")),
        ({"grammar": 'root ::= "yes" | "no"'}, lambda text: text in ("yes", "no")),
    ],
)
def test_structured_outputs(client: OpenAI, wanted: dict[str, Any], fits: Any) -> None:
    answer = ask(client, extra_body={"structured_outputs": wanted})
    assert fits(answer.choices[0].message.content)
    plain = client.completions.create(
        model=MODEL, prompt="It is", max_tokens=40, temperature=0, extra_body={"structured_outputs": wanted}
    )
    assert fits(plain.choices[0].text)


def test_a_structure_that_does_not_compile_is_the_callers_mistake(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, extra_body={"structured_outputs": {"regex": "(((("}})
    assert refused.value.code == "invalid_request_error"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_forced_call_is_a_call(client: OpenAI, choice: Any) -> None:
    fields = {"tools": [WEATHER], "tool_choice": choice, "parallel_tool_calls": False, "max_tokens": 150}
    whole = ask(client, **fields).choices[0]
    assert whole.message.content is None
    assert whole.finish_reason == ("tool_calls" if choice == "required" else "stop")
    (call,) = whole.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "get_weather"
    assert arguments["city"] in ("Paris", "Rome")
    with client.chat.completions.stream(model=MODEL, messages=QUESTION, temperature=0, **fields) as stream:
        for _ in stream:
            pass
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls or ()
    assert json.loads(streamed.function.arguments) == arguments


def test_one_of_several_tools(client: OpenAI) -> None:
    whole = ask(client, tools=[WEATHER, CLOCK], tool_choice="required", parallel_tool_calls=False)
    assert whole.choices[0].message.tool_calls[0].function.name in ("get_weather", "get_time")


def test_tools_that_the_model_may_ignore_and_a_result_that_it_gets(client: OpenAI) -> None:
    call = {"id": "call_1", "type": "function"}
    call["function"] = {"name": "get_weather", "arguments": '{"city": "Paris", "days": 1}'}  # type: ignore[assignment]
    history = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It is sunny."},
    ]
    answer = ask(client, messages=history, tools=[WEATHER], max_tokens=8)
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")


def test_an_abort_frees_the_engine(client: OpenAI, server: LiveServer) -> None:
    stream = ask(client, max_tokens=900, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    engine = server.engine(MODEL)
    assert engine is not None
    assert server.call(engine.stats).running + server.call(engine.stats).waiting == 1
    stream.close()
    wait_until(lambda: server.call(engine.stats).running + server.call(engine.stats).waiting == 0)


def test_metrics_have_its_figures(client: OpenAI, server: LiveServer) -> None:
    used = ask(client, max_tokens=5).usage.completion_tokens
    lines = [line for line in httpx.get(f"{server.url}/metrics").text.splitlines() if f'"{MODEL}"' in line]
    figures = {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines}
    assert figures["enginehouse_completion_tokens_total"] >= used
    assert figures["enginehouse_engine_steps_total"] >= used
    assert 0 <= figures["enginehouse_engine_kv_usage"] <= 1


def test_answers_have_the_shape_of_llama_cpps(client: OpenAI, server: LiveServer) -> None:
    """Field by field, and so that of the others (``test_same_shape.py``)."""
    ask(client, model="other", max_tokens=1)
    loaded = [server.engine(name) for name in (MODEL, "other")]
    abilities = set.intersection(*(set(engine.info.capabilities) for engine in loaded if engine))
    assert {"chat", "structured"} <= abilities
    with httpx.Client(base_url=server.url, timeout=350) as plain:
        check_same(shapes(plain, MODEL, abilities), shapes(plain, "other", abilities))
