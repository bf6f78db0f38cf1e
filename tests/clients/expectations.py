"""What every client library is expected to show, whatever words it has for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import pytest

from clients.server import API_KEY, CONTEXT_LENGTH, MODEL

QUESTION = "What is the capital of France?"
MAX_TOKENS = 12
# Room for one call of a small function.
CALL_TOKENS = 80
Errors = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True)
class Answer:
    """An answer as the library tells it. None is what the library does not pass on."""

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Asked:
    """A question, and the connection to ask it over. It is answered greedily, with `MAX_TOKENS` at most."""

    prompt: str = QUESTION
    model: str = MODEL
    api_key: str = API_KEY


class Library(ABC):
    """A client library, set up as its users do it, with the errors it promises."""

    missing_model: Errors
    wrong_key: Errors
    long_prompt: Errors
    passes_on_finish_reason: bool = True
    passes_on_usage: bool = True

    @abstractmethod
    def ask(self, asked: Asked) -> Answer: ...

    @abstractmethod
    def stream(self, asked: Asked) -> list[str]:
        """The pieces of text, as they came."""


class Expectations:
    """The tests that each library passes: a subclass names its `library`."""

    library: ClassVar[Library]

    def test_a_chat_is_answered(self) -> None:
        answer = self.library.ask(Asked())
        assert answer.text.strip()
        if self.library.passes_on_finish_reason:
            assert answer.finish_reason in {"stop", "length"}
        if self.library.passes_on_usage:
            assert answer.prompt_tokens is not None
            assert answer.prompt_tokens > 10
            assert answer.completion_tokens is not None
            assert 0 < answer.completion_tokens <= MAX_TOKENS

    def test_a_stream_brings_the_same_in_pieces(self) -> None:
        pieces = [piece for piece in self.library.stream(Asked()) if piece]
        assert len(pieces) > 2
        assert "".join(pieces) == self.library.ask(Asked()).text

    def test_an_unknown_model_is_named(self) -> None:
        with pytest.raises(self.library.missing_model) as refusal:
            self.library.ask(Asked(model="no-such-model"))
        assert "no-such-model" in told(refusal.value)

    def test_a_wrong_key_is_told(self) -> None:
        with pytest.raises(self.library.wrong_key) as refusal:
            self.library.ask(Asked(api_key="wrong"))
        assert "API key" in told(refusal.value)

    def test_a_prompt_beyond_the_context_is_told_with_the_limit(self) -> None:
        with pytest.raises(self.library.long_prompt) as refusal:
            self.library.ask(Asked(prompt="word " * (CONTEXT_LENGTH + 500)))
        assert f"maximum context length is {CONTEXT_LENGTH}" in told(refusal.value)


def told(error: BaseException) -> str:
    """All that a user reads of ``error``: its own words, or those it was raised from."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts += [str(cause), str(getattr(cause, "body", ""))]
        texts.append(getattr(getattr(cause, "response", None), "text", ""))
        cause = cause.__cause__ or cause.__context__
    return "\n".join(texts)


@contextmanager
def unless_refused(feature: str) -> Iterator[None]:
    """What may be asked of some engines only: it is answered, or refused by the name of the ``feature``."""
    try:
        yield
    except Exception as error:
        if "unsupported_feature" not in told(error) or feature not in told(error):
            raise
