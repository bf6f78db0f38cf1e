"""LangChain's ChatAnthropic."""

from __future__ import annotations

from typing import Annotated, Any

import anthropic
import langchain_anthropic
import pytest
from pydantic import BaseModel, Field

from clients.expectations import CALL_TOKENS, MAX_TOKENS, Answer, Asked, Expectations, Library
from clients.server import API_KEY, SERVER_URL
from clients.test_anthropic import REASONS


def chat_model(asked: Asked, **options: Any) -> Any:
    settings = {"temperature": 0, "max_tokens": MAX_TOKENS, "max_retries": 0} | options
    return langchain_anthropic.ChatAnthropic(
        base_url=SERVER_URL, api_key=asked.api_key, model=asked.model, **settings
    )


class LangChainAnthropic(Library):
    missing_model = anthropic.NotFoundError
    wrong_key = anthropic.AuthenticationError
    # It has an error of its own for some of Anthropic's messages.
    long_prompt = Exception

    def ask(self, asked: Asked) -> Answer:
        message = chat_model(asked).invoke(asked.prompt)
        usage = message.usage_metadata
        reason = REASONS[message.response_metadata["stop_reason"]]
        return Answer(message.text, reason, usage["input_tokens"], usage["output_tokens"])

    def stream(self, asked: Asked) -> list[str]:
        return [chunk.text for chunk in chat_model(asked).stream(asked.prompt)]


class TestLangChainAnthropic(Expectations):
    library = LangChainAnthropic()


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    # docs: begin
    from langchain_anthropic import ChatAnthropic

    llm = ChatAnthropic(base_url=SERVER_URL, api_key=API_KEY, model="SmolLM2-135M-Instruct", max_tokens=64)
    print(llm.invoke("What is the capital of France?").text)
    # docs: end
    assert capsys.readouterr().out.strip()


class Capital(BaseModel):
    """The capital of a country."""

    city: Annotated[str, Field(max_length=12)]


def test_calls_of_functions() -> None:
    model = chat_model(Asked(), max_tokens=CALL_TOKENS)
    structured = model.with_structured_output(Capital)
    assert isinstance(structured.invoke("What is the capital of France?"), Capital)
