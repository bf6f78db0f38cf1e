"""DSPy, whose modules ask for fields by prompt, or by a JSON schema where there is one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import (
    AdapterParseError,
    ContextWindowExceededError,
    LMAuthError,
    LMInvalidRequestError,
)

from clients.expectations import MAX_TOKENS, QUESTION, Answer, Asked, Expectations, Library, unless_refused
from clients.server import API_KEY, BASE_URL


def language_model(asked: Asked, **options: Any) -> Any:
    settings = {"temperature": 0.0, "max_tokens": MAX_TOKENS, "cache": False, "num_retries": 0} | options
    return dspy.LM(f"openai/{asked.model}", api_base=BASE_URL, api_key=asked.api_key, **settings)


class AsItIs(dspy.Adapter):
    """The question is the prompt, the answer is the text: DSPy's own ask for marks, beyond the model."""

    def format(self, signature: Any, demos: Any, inputs: Any) -> list[dict[str, Any]]:
        return [{"role": "user", "content": inputs["question"]}]

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        return {"answer": completion}


class DSPy(Library):
    missing_model = LMInvalidRequestError
    wrong_key = LMAuthError
    long_prompt = ContextWindowExceededError

    def ask(self, asked: Asked) -> Answer:
        model = language_model(asked)
        [text] = model(asked.prompt)
        usage, response = model.history[-1]["usage"], model.history[-1]["response"]
        return Answer(text, response.finish_reason, usage["prompt_tokens"], usage["completion_tokens"])

    def stream(self, asked: Asked) -> list[str]:
        async def stream() -> list[str]:
            program = dspy.streamify(dspy.Predict("question -> answer"))
            with dspy.context(lm=language_model(asked), adapter=AsItIs()):
                events = [event async for event in program(question=asked.prompt)]
            return [event.choices[0].delta.content for event in events if hasattr(event, "choices")]

        return asyncio.run(stream())


class TestDSPy(Expectations):
    library = DSPy()


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    # docs: begin
    import dspy

    lm = dspy.LM("openai/SmolLM2-135M-Instruct", api_base=BASE_URL, api_key=API_KEY, max_tokens=64)
    print(lm("What is the capital of France?")[0])
    # docs: end
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter, dspy.JSONAdapter])
def test_modules_are_answered_or_refused_by_name(adapter: Any) -> None:
    """By prompt or by schema; a model this small need not get the point."""
    with dspy.context(lm=language_model(Asked()), adapter=adapter()):
        with suppress(AdapterParseError), unless_refused("response_format"):
            assert dspy.Predict("question -> answer: str")(question=QUESTION).answer
