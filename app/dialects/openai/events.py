"""Events of OpenAI's streams: what chat and text completions share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from app.inference.answer import Answer
from app.inference.dialect import AnswerContext
from app.inference.task import Task
from app.sse import sse, to_json
from engines.base import Candidate, Chunk, TokenLogprob, Usage

# What stands in a frame's template where the text goes. No JSON text contains it: it is a control character.
_HOLE = "\x00"
_HOLE_JSON = json.dumps(_HOLE)


def now() -> int:
    return int(time.time())


class TextFrames:
    """Events that carry nothing but text, from a template: nearly all events, so they must be cheap."""

    def __init__(self, make: Callable[[int, str], dict[str, Any]], *, alike: bool = True) -> None:
        """``make`` gives a choice's event with a text in it. ``alike``: its events differ in nothing else."""
        self._make = make
        self._alike = alike
        self._templates: dict[int, list[bytes]] = {}

    def frame(self, index: int, text: str) -> bytes:
        if not self._alike:
            return sse(self._make(index, text))
        template = self._templates.get(index)
        if template is None:
            template = self._templates[index] = sse(self._make(index, _HOLE)).split(_HOLE_JSON.encode())
        return to_json(text).join(template)


class TokenFacts:
    """Facts about tokens that a request may want with every event: their count so far, and their ids."""

    def __init__(self, task: Task, context: AnswerContext) -> None:
        self._tells_usage, self._tells_ids = task.continuous_usage, task.tell_token_ids
        self.wanted = self._tells_usage or self._tells_ids
        self._prompts = context.prompts
        begun = context.resume_point
        self._counts = {0: len(begun.token_ids)} if begun is not None else {}
        self._untold: dict[int, tuple[int, ...]] = {}

    def note(self, index: int, chunk: Chunk) -> None:
        """Take note of what the next event of choice ``index`` is to tell."""
        count = self._counts.get(index, 0) + len(chunk.token_ids)
        self._counts[index] = count if chunk.usage is None else chunk.usage.completion_tokens
        if self._tells_ids:
            self._untold[index] = chunk.token_ids

    def untold(self, index: int) -> bool:
        """Whether no event has told of tokens yet that were noted."""
        return bool(self._untold.get(index))

    def of_event(self, index: int) -> dict[str, Any]:
        """Fields of an event."""
        if not self._tells_usage:
            return {}
        return {"usage": usage_info(Usage(len(self._prompts[index].token_ids), self._counts.get(index, 0)))}

    def of_choice(self, index: int) -> dict[str, Any]:
        """Fields of an event's choice."""
        return {"token_ids": list(self._untold.pop(index, ()))} if self._tells_ids else {}

    def of_prompt(self, index: int) -> dict[str, Any]:
        """Fields of whatever comes first of an answer."""
        return {"prompt_token_ids": list(self._prompts[index].token_ids)} if self._tells_ids else {}

    def of_answer(self, answer: Answer) -> dict[str, Any]:
        """Fields of a choice that is whole."""
        return {"token_ids": answer.token_ids} if self._tells_ids else {}


def prompt_logprobs(entries: Sequence[TokenLogprob]) -> list[dict[str, Any] | None]:
    """The log probabilities of a prompt in vLLM's form: by token id, and null for the first token."""
    return [_ranked(entry) if index else None for index, entry in enumerate(entries)]


def _ranked(entry: TokenLogprob) -> dict[str, Any]:
    ranks = [(entry.rank, entry.chosen), *enumerate(entry.top, 1)]
    return {
        str(each.token_id): {"logprob": each.logprob, "rank": rank, "decoded_token": printable(each.text)}
        for rank, each in ranks
    }


def token_logprob(entry: TokenLogprob) -> dict[str, Any]:
    """The log probability of a token of the answer, with those of its alternatives."""
    return {**_candidate(entry.chosen), "top_logprobs": [_candidate(each) for each in entry.top]}


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "token": printable(candidate.text),
        "logprob": candidate.logprob,
        "bytes": list(candidate.text),
    }


def usage_info(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def printable(raw: bytes) -> str:
    """A token's bytes as text; half a character shows as U+FFFD."""
    return raw.decode("utf-8", "replace")
