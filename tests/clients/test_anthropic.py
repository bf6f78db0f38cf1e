"""Anthropic's own package."""

from __future__ import annotations

import anthropic
import pytest

from clients.expectations import CALL_TOKENS, MAX_TOKENS, QUESTION, Answer, Asked, Expectations, Library
from clients.server import API_KEY, MODEL, SERVER_URL

MESSAGES = [{"role": "user", "content": QUESTION}]
# The package has no such argument any more.
GREEDY = {"temperature": 0}
# What the server calls why an answer ended, in this API's words.
REASONS = {"end_turn": "stop", "max_tokens": "length"}
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
    },
}


def client(key: str = API_KEY) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=SERVER_URL, api_key=key, max_retries=0)


class Anthropic(Library):
    missing_model = anthropic.NotFoundError
    wrong_key = anthropic.AuthenticationError
    long_prompt = anthropic.BadRequestError

    def ask(self, asked: Asked) -> Answer:
        with client(asked.api_key) as connection:
            answer = connection.messages.create(
                model=asked.model,
                messages=[{"role": "user", "content": asked.prompt}],
                max_tokens=MAX_TOKENS,
                extra_body=GREEDY,
            )
        usage = answer.usage
        prompt = usage.input_tokens + (usage.cache_read_input_tokens or 0)
        return Answer(answer.content[0].text, REASONS[answer.stop_reason], prompt, usage.output_tokens)

    def stream(self, asked: Asked) -> list[str]:
        with (
            client(asked.api_key) as connection,
            connection.messages.stream(
                model=asked.model,
                messages=[{"role": "user", "content": asked.prompt}],
                max_tokens=MAX_TOKENS,
                extra_body=GREEDY,
            ) as stream,
        ):
            return list(stream.text_stream)


class TestAnthropic(Expectations):
    library = Anthropic()


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    # docs: begin
    from anthropic import Anthropic

    client = Anthropic(base_url=SERVER_URL, api_key=API_KEY)
    answer = client.messages.create(
        model="SmolLM2-135M-Instruct",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        max_tokens=64,
    )
    print(answer.content[0].text)
    # docs: end
    assert capsys.readouterr().out.strip()


def test_tools_are_called_and_their_results_are_read() -> None:
    with client() as connection:
        asked = {"model": MODEL, "max_tokens": CALL_TOKENS, "tools": [WEATHER], "extra_body": GREEDY}
        choice = {"type": "tool", "name": "get_weather"}
        answer = connection.messages.create(**asked, messages=MESSAGES, tool_choice=choice)
        (call,) = [block for block in answer.content if block.type == "tool_use"]
        assert (answer.stop_reason, set(call.input)) == ("tool_use", {"city"})
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "It is sunny."}
        history = [
            *MESSAGES,
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": [result]},
        ]
        after = connection.messages.create(**asked, messages=history)
        counted = connection.messages.count_tokens(model=MODEL, tools=[WEATHER], messages=history)
    assert after.stop_reason
    usage = after.usage
    cached = usage.cache_read_input_tokens or 0
    assert counted.input_tokens == usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0)
