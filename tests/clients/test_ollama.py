"""Ollama's own package."""

from __future__ import annotations

import ollama
import pytest
from pydantic import BaseModel

from clients.expectations import CALL_TOKENS, MAX_TOKENS, QUESTION, Answer, Asked, Expectations, Library
from clients.server import API_KEY, EMBEDDER, MODEL, SERVER_URL

MESSAGES = [{"role": "user", "content": QUESTION}]
OPTIONS = {"temperature": 0, "num_predict": MAX_TOKENS}


def client(key: str = API_KEY) -> ollama.Client:
    return ollama.Client(SERVER_URL, headers={"Authorization": f"Bearer {key}"})


class Ollama(Library):
    missing_model = wrong_key = long_prompt = ollama.ResponseError

    def ask(self, asked: Asked) -> Answer:
        messages = [{"role": "user", "content": asked.prompt}]
        answer = client(asked.api_key).chat(asked.model, messages, options=OPTIONS)
        return Answer(answer.message.content, answer.done_reason, answer.prompt_eval_count, answer.eval_count)

    def stream(self, asked: Asked) -> list[str]:
        messages = [{"role": "user", "content": asked.prompt}]
        stream = client(asked.api_key).chat(asked.model, messages, options=OPTIONS, stream=True)
        return [part.message.content for part in stream]


class TestOllama(Expectations):
    library = Ollama()


def test_the_example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", API_KEY)
    # docs: begin
    from ollama import Client

    client = Client(SERVER_URL)
    answer = client.chat(
        "SmolLM2-135M-Instruct",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        options={"num_predict": 64},
    )
    print(answer.message.content)
    # docs: end
    assert capsys.readouterr().out.strip()


async def test_async_streams() -> None:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with ollama.AsyncClient(SERVER_URL, headers=headers) as other:
        stream = await other.generate(MODEL, "Red,", options=OPTIONS, stream=True)
        parts = [part async for part in stream]
    assert parts[-1].done
    assert len(parts) > 2


def get_weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: The city's name.
    """
    return f"It is sunny in {city}."


def test_functions_as_tools_and_their_results() -> None:
    answer = client().chat(MODEL, MESSAGES, tools=[get_weather], options=OPTIONS)
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    history = [
        *MESSAGES,
        answer.message,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "get_weather", "content": get_weather("Paris")},
    ]
    assert client().chat(MODEL, history, tools=[get_weather], options=OPTIONS).done


class Capital(BaseModel):
    city: str


def test_an_answer_is_what_the_schema_says() -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
    }
    options = {"temperature": 0, "num_predict": CALL_TOKENS}
    answer = client().chat(MODEL, MESSAGES, format=schema, options=options)
    assert Capital.model_validate_json(answer.message.content).city


def test_models_and_vectors() -> None:
    assert {MODEL, EMBEDDER} <= {each.model for each in client().list().models}
    assert client().show(f"{MODEL}:latest").modelinfo["general.architecture"] == "llama"
    found = client().embed(EMBEDDER, ["The sun rises.", "Dawn breaks."])
    assert [len(vector) for vector in found.embeddings] == [384, 384]
    assert {each.name for each in client().ps().models} >= {EMBEDDER}
