"""Answers that one backend begins and another goes on with: which ones, and what must be told of them."""

from __future__ import annotations

from fastapi import Request

from app.convert.answers import AnswerFormat, TextEvents, to_json
from app.convert.features import Features
from app.convert.parsed_answers import AnswerReader
from app.convert.requests import prompt_list
from app.schemas.chat import ChatCompletionRequest
from app.schemas.completions import CompletionRequest
from balancer.call import ResumePoint
from balancer.proxy.headers import TOKENS_HEADER
from engines.base import Chunk, Usage
from engines.errors import UnsupportedFeature

Body = ChatCompletionRequest | CompletionRequest


class AnnouncedEvents(TextEvents):
    """Events with the tokens they are made of, in a comment (``:tokens 12,13``) in front of them.

    Tokens whose text is held back go with the next event, the opening event has none: so whoever read
    an event to its end knows the tokens to go on from.
    """

    def __init__(self, format: AnswerFormat) -> None:
        super().__init__(format)
        self._unannounced: list[int] = []

    def write(self, index: int, chunk: Chunk) -> bytes:
        self._unannounced += chunk.token_ids
        opening = b"" if index in self._opened else self._open(index)
        events = super().write(index, chunk)
        return opening + self._comment() + events if events else opening

    def _comment(self) -> bytes:
        if not self._unannounced:
            return b""
        token_ids, self._unannounced = self._unannounced, []
        return b":tokens " + ",".join(map(str, token_ids)).encode() + b"\n"


def usage_comment(usage: Usage) -> bytes:
    """The tokens of a whole answer, for a server that passes it on."""
    counts = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
    }
    return b":usage " + to_json(counts) + b"\n\n"


def wants_tokens(request: Request) -> bool:
    """Whether ``request`` comes from the parent of this server and asks for tokens and usage."""
    return request.headers.get(TOKENS_HEADER.decode()) == "1" and bool(request.app.state.server.is_instance)


def resumable(body: Body, features: Features) -> bool:
    """Whether another backend can go on with the answer. One with reasoning cannot be resumed either, but
    that only the engine knows."""
    return _obstacle(body, features) is None


def begun_elsewhere(body: Body, features: Features) -> ResumePoint | None:
    """What ``body`` says of an answer that began elsewhere. Raises `UnsupportedFeature` if its kind cannot
    be continued."""
    if body.continuation is None:
        return None
    if obstacle := _obstacle(body, features):
        raise _refusal(obstacle)
    return ResumePoint(tuple(body.continuation.token_ids), body.continuation.created)


def refuse_readers(continuation: ResumePoint | None, readers: list[AnswerReader]) -> None:
    """Raise `UnsupportedFeature` if ``readers`` would begin in the middle of an answer."""
    if continuation is not None and readers:
        raise _refusal("reasoning")


def _obstacle(body: Body, features: Features) -> str | None:
    """Why nobody can go on with the answer from its tokens alone, if so."""
    if not body.stream:
        return "stream: false"
    if body.n > 1:
        return "n > 1"
    if isinstance(body, CompletionRequest) and len(prompt_list(body.prompt)) > 1:
        return "several prompts"
    if body.logprobs is not None and body.logprobs is not False:
        return "logprobs"
    if features.tools is not None:
        return "tools"
    return "structured output" if features.structure is not None else None


def _refusal(obstacle: str) -> UnsupportedFeature:
    return UnsupportedFeature(
        f"an answer with {obstacle} cannot be continued: leave `continuation` out", param="continuation"
    )
