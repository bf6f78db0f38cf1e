"""LangChain's ChatOpenAI."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, ClassVar

import langchain_openai
import openai
import pytest
from pydantic import BaseModel, Field

from clients.expectations import CALL_TOKENS, MAX_TOKENS, Answer, Asked, Expectations, Library
from clients.server import API_KEY, BASE_URL, EMBEDDER


def chat_model(asked: Asked, **options: Any) -> Any:
    settings = {"temperature": 0, "max_tokens": MAX_TOKENS, "max_retries": 0} | options
    return langchain_openai.ChatOpenAI(
        base_url=BASE_URL, api_key=asked.api_key, model=asked.model, **settings
    )


class LangChain(Library):
    missing_model = openai.NotFoundError
    wrong_key = openai.AuthenticationError
    # It is LangChain's own ContextOverflowError where errors show their code, which openai 3's no longer do.
    long_prompt = openai.BadRequestError

    def ask(self, asked: Asked) -> Answer:
        message = chat_model(asked).invoke(asked.prompt)
        usage = message.usage_metadata
        reason = message.response_metadata["finish_reason"]
        return Answer(message.content, reason, usage["input_tokens"], usage["output_tokens"])

    def stream(self, asked: Asked) -> list[str]:
        return [chunk.content for chunk in chat_model(asked).stream(asked.prompt)]


class TestLangChain(Expectations):
    library = LangChain()


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    # docs: begin
    from langchain_openai import ChatOpenAI

    llm = ChatOpenAI(base_url=BASE_URL, api_key=API_KEY, model="SmolLM2-135M-Instruct", max_tokens=64)
    print(llm.invoke("What is the capital of France?").content)
    # docs: end
    assert capsys.readouterr().out.strip()


def test_a_stream_ends_with_its_usage() -> None:
    chunks = list(chat_model(Asked(), stream_usage=True).stream("Hello"))
    assert [chunk.usage_metadata["total_tokens"] > 10 for chunk in chunks if chunk.usage_metadata] == [True]


async def test_async_batches() -> None:
    answers = await chat_model(Asked()).abatch(["Red,", "One, two,", "Yes."])
    assert all(answer.content for answer in answers)


def test_conversations_with_a_system_prompt_and_earlier_answers() -> None:
    conversation = [("system", "Be brief."), ("human", "Hi"), ("ai", "Hello!"), ("human", "And you are?")]
    assert chat_model(Asked()).invoke(conversation).content


class Capital(BaseModel):
    city: Annotated[str, Field(max_length=12)]


def test_calls_of_functions() -> None:
    model = chat_model(Asked(), max_tokens=CALL_TOKENS)
    structured = model.with_structured_output(Capital, method="function_calling")
    assert isinstance(structured.invoke("What is the capital of France?"), Capital)
    called = model.bind_tools([Capital], tool_choice="any").invoke("What is the capital of France?")
    assert {call["name"] for call in called.tool_calls} == {"Capital"}


def test_an_answer_is_what_the_schema_says() -> None:
    model = chat_model(Asked(), max_tokens=CALL_TOKENS)
    structured = model.with_structured_output(Capital, method="json_schema")
    assert isinstance(structured.invoke("Which city is the capital of France?"), Capital)


def test_any_json_object_is_an_answer() -> None:
    structured = chat_model(Asked()).with_structured_output(Capital, method="json_mode", include_raw=True)
    with suppress(openai.LengthFinishReasonError):  # the model need not end it
        assert structured.invoke("Which city is the capital of France? Answer in JSON.")["raw"]


class LangChainResponses(LangChain):
    """The same, over the Responses API."""

    passes_on_finish_reason = False

    def ask(self, asked: Asked) -> Answer:
        message = chat_model(asked, use_responses_api=True).invoke(asked.prompt)
        usage = message.usage_metadata
        return Answer(message.text, None, usage["input_tokens"], usage["output_tokens"])

    def stream(self, asked: Asked) -> list[str]:
        return [chunk.text for chunk in chat_model(asked, use_responses_api=True).stream(asked.prompt)]


class TestLangChainOverResponses(Expectations):
    library = LangChainResponses()


def test_calls_of_functions_over_responses() -> None:
    model = chat_model(Asked(), max_tokens=CALL_TOKENS, use_responses_api=True)
    called = model.bind_tools([Capital], tool_choice="any").invoke("What is the capital of France?")
    assert {call["name"] for call in called.tool_calls} == {"Capital"}


def test_embeddings_of_texts(capsys: pytest.CaptureFixture[str]) -> None:
    # docs: begin
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(
        base_url=BASE_URL, api_key=API_KEY, model="all-MiniLM-L6-v2", check_embedding_ctx_length=False
    )
    print(len(embeddings.embed_query("The sun rises.")))
    # docs: end
    assert capsys.readouterr().out == "384\n"
    assert len(embeddings.embed_documents([f"Text {i}" for i in range(70)])) == 70


class OwnTokens:
    """An encoding of tiktoken's that is the model's own tokenizer, for one text."""

    text = "The sun rises over the sea."
    tokens: ClassVar[list[int]] = [101, 1996, 3103, 9466, 2058, 1996, 2712, 1012, 102]

    def encode(self, text: str, **_: Any) -> list[int]:
        assert text == self.text
        return self.tokens

    encode_ordinary = encode


def test_embeddings_of_token_ids_as_langchain_sends_them_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"base_url": BASE_URL, "api_key": API_KEY, "model": EMBEDDER}
    texts = langchain_openai.OpenAIEmbeddings(**settings, check_embedding_ctx_length=False)
    monkeypatch.setattr("tiktoken.encoding_for_model", lambda name: OwnTokens())
    found = langchain_openai.OpenAIEmbeddings(**settings).embed_documents([OwnTokens.text])
    assert found[0] == pytest.approx(texts.embed_query(OwnTokens.text), abs=1e-4)


def test_token_ids_of_another_model_are_refused_where_they_can_be_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(OwnTokens, "tokens", [40000])
    monkeypatch.setattr("tiktoken.encoding_for_model", lambda name: OwnTokens())
    embeddings = langchain_openai.OpenAIEmbeddings(base_url=BASE_URL, api_key=API_KEY, model=EMBEDDER)
    with pytest.raises(openai.BadRequestError, match="Send text"):
        embeddings.embed_documents([OwnTokens.text])
