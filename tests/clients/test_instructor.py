"""instructor, which makes pydantic models of answers."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import instructor
import openai
from instructor.core import InstructorError, InstructorRetryException
from pydantic import BaseModel, Field

from clients.expectations import CALL_TOKENS, MAX_TOKENS, Answer, Asked, Expectations, Library
from clients.server import API_KEY, BASE_URL


def make_client(asked: Asked, mode: Any) -> Any:
    return instructor.from_openai(
        openai.OpenAI(base_url=BASE_URL, api_key=asked.api_key, max_retries=0), mode=mode
    )


def arguments(asked: Asked) -> dict[str, Any]:
    messages = [{"role": "user", "content": asked.prompt}]
    return {"model": asked.model, "messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS}


class Instructor(Library):
    """Without a response model, instructor hands answers on as they are."""

    missing_model = (openai.NotFoundError, InstructorRetryException)
    wrong_key = (openai.AuthenticationError, InstructorRetryException)
    long_prompt = (openai.BadRequestError, InstructorRetryException)

    def ask(self, asked: Asked) -> Answer:
        client = make_client(asked, instructor.Mode.MD_JSON)
        completion = client.create(response_model=None, **arguments(asked))
        choice, usage = completion.choices[0], completion.usage
        return Answer(
            choice.message.content, choice.finish_reason, usage.prompt_tokens, usage.completion_tokens
        )

    def stream(self, asked: Asked) -> list[str]:
        client = make_client(asked, instructor.Mode.MD_JSON)
        events = client.create(response_model=None, stream=True, **arguments(asked))
        return [event.choices[0].delta.content or "" for event in events]


class TestInstructor(Expectations):
    library = Instructor()


def test_the_example() -> None:
    with suppress(InstructorError):  # a model this small need not write JSON
        # docs: begin
        import instructor
        from openai import OpenAI
        from pydantic import BaseModel

        class Capital(BaseModel):
            city: str
            country: str

        server = OpenAI(base_url=BASE_URL, api_key=API_KEY)
        client = instructor.from_openai(server, mode=instructor.Mode.MD_JSON)
        capital = client.create(
            model="SmolLM2-135M-Instruct",
            response_model=Capital,
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            max_tokens=64,
        )
        # docs: end
        assert capital.city


class Capital(BaseModel):
    city: Annotated[str, Field(max_length=12)]


def test_a_call_of_a_function_is_the_answer() -> None:
    asked = arguments(Asked()) | {"max_tokens": CALL_TOKENS}
    found = make_client(Asked(), instructor.Mode.TOOLS).create(response_model=Capital, max_retries=0, **asked)
    assert isinstance(found, Capital)


def test_an_answer_is_what_the_schema_says() -> None:
    client = make_client(Asked(), instructor.Mode.JSON_SCHEMA)
    asked = arguments(Asked()) | {"max_tokens": CALL_TOKENS}
    assert isinstance(client.create(response_model=Capital, max_retries=0, **asked), Capital)


def test_any_json_object_is_an_answer() -> None:
    try:
        client = make_client(Asked(), instructor.Mode.JSON)
        client.create(response_model=Capital, max_retries=0, **arguments(Asked()))
    except InstructorError as error:  # the model need not write the object that is meant
        if "Error code" in str(error):
            raise
