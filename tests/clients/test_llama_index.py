"""LlamaIndex's OpenAILike."""

from __future__ import annotations

from typing import Any

import llama_index.llms.openai_like as llama_index
import openai
import pytest
from llama_index.core.llms import ChatMessage

from clients.expectations import MAX_TOKENS, Answer, Asked, Expectations, Library
from clients.server import API_KEY, BASE_URL, CONTEXT_LENGTH, MODEL


def language_model(asked: Asked, **options: Any) -> Any:
    settings = {"temperature": 0, "max_tokens": MAX_TOKENS, "max_retries": 0, "is_chat_model": True}
    return llama_index.OpenAILike(
        api_base=BASE_URL,
        api_key=asked.api_key,
        model=asked.model,
        context_window=CONTEXT_LENGTH,
        **settings | options,
    )


def messages(asked: Asked) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=asked.prompt)]


class LlamaIndex(Library):
    missing_model = openai.NotFoundError
    wrong_key = openai.AuthenticationError
    long_prompt = openai.BadRequestError

    def ask(self, asked: Asked) -> Answer:
        response = language_model(asked).chat(messages(asked))
        usage = response.raw.usage
        reason = response.raw.choices[0].finish_reason
        return Answer(response.message.content, reason, usage.prompt_tokens, usage.completion_tokens)

    def stream(self, asked: Asked) -> list[str]:
        return [part.delta for part in language_model(asked).stream_chat(messages(asked))]


class TestLlamaIndex(Expectations):
    library = LlamaIndex()


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    # docs: begin
    from llama_index.llms.openai_like import OpenAILike

    llm = OpenAILike(
        api_base=BASE_URL,
        api_key=API_KEY,
        model="SmolLM2-135M-Instruct",
        is_chat_model=True,
        context_window=8192,
        max_tokens=64,
    )
    print(llm.complete("What is the capital of France?"))
    # docs: end
    assert capsys.readouterr().out.strip()


def test_a_base_model_is_asked_by_completion() -> None:
    model = language_model(Asked(), is_chat_model=False)
    assert model.complete("Once upon a time").text
    *_, last = model.stream_complete("Once upon a time")
    assert last.text == model.complete("Once upon a time").text


async def test_async() -> None:
    response = await language_model(Asked()).achat(
        [ChatMessage(role="system", content="Be brief."), *messages(Asked())]
    )
    assert response.message.content
    assert response.raw.model == MODEL
