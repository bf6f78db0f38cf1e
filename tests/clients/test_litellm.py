"""LiteLLM as a library."""

from __future__ import annotations

from typing import Any

import litellm
import pytest

from clients.expectations import MAX_TOKENS, QUESTION, Answer, Asked, Expectations, Library, unless_refused
from clients.server import API_KEY, BASE_URL, MODEL


def arguments(asked: Asked) -> dict[str, Any]:
    return {
        "model": f"openai/{asked.model}",
        "api_base": BASE_URL,
        "api_key": asked.api_key,
        "messages": [{"role": "user", "content": asked.prompt}],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "num_retries": 0,
        "max_retries": 0,
    }


class LiteLLM(Library):
    missing_model = litellm.NotFoundError
    wrong_key = litellm.AuthenticationError
    long_prompt = litellm.ContextWindowExceededError

    def ask(self, asked: Asked) -> Answer:
        answer = litellm.completion(**arguments(asked))
        choice, usage = answer.choices[0], answer.usage
        return Answer(
            choice.message.content, choice.finish_reason, usage.prompt_tokens, usage.completion_tokens
        )

    def stream(self, asked: Asked) -> list[str]:
        events = litellm.completion(**arguments(asked), stream=True)
        return [event.choices[0].delta.content or "" for event in events if event.choices]


class TestLiteLLM(Expectations):
    library = LiteLLM()


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    # docs: begin
    import litellm

    answer = litellm.completion(
        model="openai/SmolLM2-135M-Instruct",  # "openai/" says how to talk to it
        api_base=BASE_URL,
        api_key=API_KEY,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        max_tokens=64,
    )
    print(answer.choices[0].message.content)
    # docs: end
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("provider", ["hosted_vllm", "lm_studio", "custom_openai", "text-completion-openai"])
def test_other_providers_of_the_same_api(provider: str) -> None:
    asked = arguments(Asked(prompt="Once upon a time")) | {"model": f"{provider}/{MODEL}"}
    assert litellm.completion(**asked).choices[0].message.content


async def test_async_with_usage_in_the_stream() -> None:
    events = await litellm.acompletion(
        **arguments(Asked(QUESTION)), stream=True, stream_options={"include_usage": True}
    )
    usage = [event.usage async for event in events if getattr(event, "usage", None)]
    assert usage[-1].completion_tokens > 0


def test_structured_output_is_answered_or_refused_by_name() -> None:
    with unless_refused("response_format"):
        assert litellm.completion(**arguments(Asked()), response_format={"type": "json_object"}).choices


def test_reranking_is_answered_or_refused_by_name() -> None:
    """The bundled model chats: a reranker would answer in the shape that this client reads."""
    with unless_refused("ranks no documents"):
        answer = litellm.rerank(
            model=f"hosted_vllm/{MODEL}",
            query=QUESTION,
            documents=["Paris is the capital of France.", "The sea is blue."],
            api_base=BASE_URL,
            api_key=API_KEY,
        )
        assert answer.results
