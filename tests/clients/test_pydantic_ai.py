"""Pydantic AI's agents."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated, Any

import pydantic_ai
import pytest
from pydantic import BaseModel, Field
from pydantic_ai.exceptions import (
    ModelAuthenticationError,
    ModelContextWindowExceededError,
    ModelNotFoundError,
    UnexpectedModelBehavior,
)
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from clients.expectations import (
    CALL_TOKENS,
    MAX_TOKENS,
    QUESTION,
    Answer,
    Asked,
    Expectations,
    Library,
    unless_refused,
)
from clients.server import API_KEY, BASE_URL

SETTINGS: Any = {"temperature": 0, "max_tokens": MAX_TOKENS}


def agent(asked: Asked, **options: Any) -> Any:
    provider = OpenAIProvider(base_url=BASE_URL, api_key=asked.api_key)
    model = OpenAIChatModel(asked.model, provider=provider)
    return pydantic_ai.Agent(model, model_settings=SETTINGS, **options)


class PydanticAI(Library):
    missing_model = ModelNotFoundError
    wrong_key = ModelAuthenticationError
    long_prompt = ModelContextWindowExceededError

    def ask(self, asked: Asked) -> Answer:
        result = agent(asked).run_sync(asked.prompt)
        response, usage = result.response, result.response.usage
        return Answer(result.output, response.finish_reason, usage.input_tokens, usage.output_tokens)

    def stream(self, asked: Asked) -> list[str]:
        async def stream() -> list[str]:
            async with agent(asked).run_stream(asked.prompt) as result:
                return [piece async for piece in result.stream_text(delta=True, debounce_by=None)]

        return asyncio.run(stream())


class TestPydanticAI(Expectations):
    library = PydanticAI()


class City(BaseModel):
    name: str


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    # docs: begin
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel(
        "SmolLM2-135M-Instruct", provider=OpenAIProvider(base_url=BASE_URL, api_key=API_KEY)
    )
    agent = Agent(model, model_settings={"max_tokens": 64})
    print(agent.run_sync("What is the capital of France?").output)
    # docs: end
    assert capsys.readouterr().out.strip()


class Capital(BaseModel):
    city: Annotated[str, Field(max_length=12)]


def test_a_call_of_a_function_is_the_output() -> None:
    asking = agent(Asked(), output_type=pydantic_ai.ToolOutput(Capital), retries=0)
    settings: Any = SETTINGS | {"max_tokens": CALL_TOKENS, "parallel_tool_calls": False}
    assert isinstance(asking.run_sync(QUESTION, model_settings=settings).output, Capital)


@pytest.mark.parametrize("kind", ["native", "prompted"])
def test_structured_output_is_answered_or_refused_by_name(kind: str) -> None:
    """A response format, or a prompt that asks for JSON; the model is too small for JSON."""
    wrap = {"native": pydantic_ai.NativeOutput, "prompted": pydantic_ai.PromptedOutput}
    asking = agent(Asked(), output_type=wrap[kind](City), retries=0)
    with suppress(UnexpectedModelBehavior), unless_refused("response_format"):
        assert asking.run_sync(QUESTION).output


def test_tools_that_the_model_may_call() -> None:
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"Rain in {city}"

    assert agent(Asked(), tools=[weather]).run_sync("How is the weather in Paris?").output


def test_instructions_and_a_conversation() -> None:
    first = agent(Asked(), instructions="Be brief.").run_sync("Hi")
    second = agent(Asked()).run_sync("And you are?", message_history=first.all_messages())
    assert second.output
