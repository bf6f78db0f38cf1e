"""OpenAI's Agents SDK, over the Responses API: a loop of tools and answers."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from agents import Agent, ModelSettings, Runner, function_tool, set_tracing_disabled
from agents.exceptions import ModelBehaviorError
from agents.models.openai_responses import OpenAIResponsesModel
from openai import AsyncOpenAI

from clients.expectations import CALL_TOKENS, QUESTION, Answer, Asked, Expectations, Library
from clients.server import API_KEY, BASE_URL

set_tracing_disabled(True)
# An answer that is cut off is an error to it, and so small a model may not find an end.
ENDING = {"max_tokens": 60, "extra_body": {"stop": [",", "."]}}


def agent(asked: Asked, **options: Any) -> Agent:
    server = AsyncOpenAI(base_url=BASE_URL, api_key=asked.api_key, max_retries=0)
    settings = ModelSettings(temperature=0, **ENDING)
    options = {"model_settings": settings} | options
    return Agent("guide", model=OpenAIResponsesModel(asked.model, server), **options)


class OpenAIAgents(Library):
    missing_model = openai.NotFoundError
    wrong_key = openai.AuthenticationError
    long_prompt = openai.BadRequestError
    passes_on_finish_reason = passes_on_usage = False

    def ask(self, asked: Asked) -> Answer:
        result = Runner.run_sync(agent(asked), asked.prompt)
        usage = result.context_wrapper.usage
        return Answer(result.final_output, None, usage.input_tokens, usage.output_tokens)

    def stream(self, asked: Asked) -> list[str]:
        async def pieces() -> list[str]:
            result = Runner.run_streamed(agent(asked), asked.prompt)
            events = [event async for event in result.stream_events() if event.type == "raw_response_event"]
            return [each.data.delta for each in events if each.data.type == "response.output_text.delta"]

        return asyncio.run(pieces())


class TestOpenAIAgents(Expectations):
    library = OpenAIAgents()


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        # docs: begin
        from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner
        from openai import AsyncOpenAI

        server = AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY)
        agent = Agent(
            name="guide",
            model=OpenAIResponsesModel("SmolLM2-135M-Instruct", server),
            model_settings=ModelSettings(max_tokens=64),
        )
        print(Runner.run_sync(agent, "What is the capital of France?").final_output)
        # docs: end
    except ModelBehaviorError:
        pytest.skip("so small a model found no end")
    assert capsys.readouterr().out.strip()


def test_a_tool_is_called_and_its_result_goes_back() -> None:
    called: list[str] = []

    @function_tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        called.append(city)
        return "It is sunny."

    # Forced once: so small a model calls nothing by itself. The SDK resets the choice after that.
    settings = ModelSettings(
        temperature=0, max_tokens=CALL_TOKENS, tool_choice="get_weather", parallel_tool_calls=False
    )
    asking = agent(Asked(), tools=[get_weather], model_settings=settings)
    result = Runner.run_sync(asking, QUESTION, max_turns=5)
    assert called  # once, unless the model calls it again by itself
    kinds = [item.type for item in result.new_items]
    assert kinds[:2] == ["tool_call_item", "tool_call_output_item"]
    assert result.final_output.strip()
