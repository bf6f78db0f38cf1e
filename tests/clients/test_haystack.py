"""Haystack's OpenAIChatGenerator."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret

from clients.expectations import MAX_TOKENS, QUESTION, Answer, Asked, Expectations, Library
from clients.server import API_KEY, BASE_URL


def generator(asked: Asked, **options: Any) -> Any:
    return OpenAIChatGenerator(
        api_base_url=BASE_URL,
        api_key=Secret.from_token(asked.api_key),
        model=asked.model,
        generation_kwargs={"temperature": 0, "max_tokens": MAX_TOKENS},
        max_retries=0,
        **options,
    )


class Haystack(Library):
    missing_model = openai.NotFoundError
    wrong_key = openai.AuthenticationError
    long_prompt = openai.BadRequestError

    def ask(self, asked: Asked) -> Answer:
        [reply] = generator(asked).run([ChatMessage.from_user(asked.prompt)])["replies"]
        usage = reply.meta["usage"]
        return Answer(
            reply.text, reply.meta["finish_reason"], usage["prompt_tokens"], usage["completion_tokens"]
        )

    def stream(self, asked: Asked) -> list[str]:
        pieces: list[str] = []
        component = generator(asked, streaming_callback=lambda chunk: pieces.append(chunk.content))
        component.run([ChatMessage.from_user(asked.prompt)])
        return pieces


class TestHaystack(Expectations):
    library = Haystack()


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    # docs: begin
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.utils import Secret

    generator = OpenAIChatGenerator(
        api_base_url=BASE_URL,
        api_key=Secret.from_token(API_KEY),
        model="SmolLM2-135M-Instruct",
        generation_kwargs={"max_tokens": 64},
    )
    print(generator.run([ChatMessage.from_user("What is the capital of France?")])["replies"][0].text)
    # docs: end
    assert capsys.readouterr().out.strip()


def test_in_a_pipeline_with_a_prompt_builder() -> None:
    from haystack import Pipeline
    from haystack.components.builders import ChatPromptBuilder

    pipeline = Pipeline()
    pipeline.add_component("prompt", ChatPromptBuilder([ChatMessage.from_user("{{question}}")]))
    pipeline.add_component("model", generator(Asked()))
    pipeline.connect("prompt.prompt", "model.messages")
    assert pipeline.run({"prompt": {"question": QUESTION}})["model"]["replies"][0].text


async def test_async() -> None:
    replies = (await generator(Asked()).run_async([ChatMessage.from_user(QUESTION)]))["replies"]
    assert replies[0].text
