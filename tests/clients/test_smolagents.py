"""smolagents."""

from __future__ import annotations

from typing import Any

import openai
import pytest
import smolagents

from clients.expectations import CALL_TOKENS, MAX_TOKENS, Answer, Asked, Expectations, Library
from clients.server import API_KEY, BASE_URL


def chat_model(asked: Asked, max_tokens: int = MAX_TOKENS) -> Any:
    return smolagents.OpenAIModel(
        model_id=asked.model,
        api_base=BASE_URL,
        api_key=asked.api_key,
        client_kwargs={"max_retries": 0},
        temperature=0,
        max_tokens=max_tokens,
    )


def messages(asked: Asked) -> list[dict[str, Any]]:
    """In parts, as its agents send them."""
    return [{"role": "user", "content": [{"type": "text", "text": asked.prompt}]}]


class Smolagents(Library):
    missing_model = openai.NotFoundError
    wrong_key = openai.AuthenticationError
    long_prompt = openai.BadRequestError

    def ask(self, asked: Asked) -> Answer:
        message = chat_model(asked).generate(messages(asked))
        usage, reason = message.token_usage, message.raw.choices[0].finish_reason
        return Answer(message.content, reason, usage.input_tokens, usage.output_tokens)

    def stream(self, asked: Asked) -> list[str]:
        return [delta.content or "" for delta in chat_model(asked).generate_stream(messages(asked))]


class TestSmolagents(Expectations):
    library = Smolagents()


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    # docs: begin
    from smolagents import ChatMessage, OpenAIModel

    model = OpenAIModel("SmolLM2-135M-Instruct", api_base=BASE_URL, api_key=API_KEY, max_tokens=64)
    print(model([ChatMessage("user", "What is the capital of France?")]).content)
    # docs: end
    assert capsys.readouterr().out.strip()


def test_stop_sequences_end_an_answer() -> None:
    """Agents that write code send them."""
    model = chat_model(Asked())
    assert " " not in model.generate(messages(Asked()), stop_sequences=[" "]).content.strip()


def test_a_call_of_a_tool() -> None:
    """The library asks for one with tool_choice."""

    @smolagents.tool
    def weather(city: str) -> str:
        """The weather in a city.

        Args:
            city: its name
        """
        return f"Rain in {city}"

    model = chat_model(Asked(), max_tokens=CALL_TOKENS)
    calls = model.generate(messages(Asked()), tools_to_call_from=[weather]).tool_calls
    assert calls
    assert {call.function.name for call in calls} == {"weather"}
