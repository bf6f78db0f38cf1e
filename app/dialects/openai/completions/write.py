"""Writer of text completions: ``text_completion``, streamed in pieces of the same shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from app.dialects.openai.events import (
    TextFrames,
    TokenFacts,
    now,
    printable,
    prompt_logprobs,
    usage_info,
)
from app.dialects.openai.wire import DONE
from app.inference.answer import Answer
from app.inference.dialect import AnswerContext
from app.inference.task import Task
from app.sse import sse
from engines.base import Chunk, TokenLogprob, Usage


class CompletionWriter:
    """Events and documents of one task (`AnswerWriter`)."""

    def __init__(self, task: Task, context: AnswerContext) -> None:
        begun = context.resume_point
        self.created = now() if begun is None else begun.created
        self._choices = context.choices
        self._prompts = context.prompts
        self._echoes = task.echo
        # Then the echo comes with the first chunk, which knows their log probabilities.
        self._scores_echo = task.echo and task.logprobs is not None
        self._tells_scores = task.tell_prompt_logprobs
        facts = self._facts = TokenFacts(task, context)
        # Of an answer that another backend began, the echo was sent there.
        self._has_opening = begun is None and (task.echo or task.tell_token_ids) and not self._scores_echo
        self._head = {
            "id": f"cmpl-{context.answer_id}",
            "object": "text_completion",
            "created": self.created,
            "model": task.target.name,
        }
        self._tells_usage = task.include_usage
        # With include_usage every event has the field: null until the last.
        self._usage = {"usage": None} if task.include_usage else {}
        self._frames = TextFrames(self._event, alike=not facts.wanted)
        self._offsets: dict[int, int] = {}

    # -- streams -----------------------------------------------------------------------------------

    def opening(self, index: int) -> bytes:
        if not self._has_opening:
            return b""
        event = self._event(index, self._echo(index))
        event["choices"][0] |= self._facts.of_prompt(index)
        return sse(event)

    def write(self, index: int, chunk: Chunk) -> bytes:
        if self._facts.wanted:
            self._facts.note(index, chunk)
        data = b""
        if chunk.prompt_logprobs and self._scores_echo:
            event = self._event(index, self._echo(index), self._echoed(index, chunk.prompt_logprobs))
            event["choices"][0] |= self._facts.of_prompt(index)
            data = sse(event)
        if chunk.logprobs:
            data += sse(self._event(index, chunk.text, self._logprobs(index, chunk.logprobs)))
        elif chunk.text:
            data += self._frames.frame(index, chunk.text)
        if chunk.finish_reason is not None:
            # An event of its own: some clients drop text that comes with the finish reason.
            data += sse(self._event(index, finish_reason=chunk.finish_reason))
        elif self._facts.untold(index):
            data += sse(self._event(index))
        return data

    def closing(self, usage: Usage) -> bytes:
        if not self._tells_usage:
            return DONE
        return sse({**self._head, "choices": [], "usage": usage_info(usage)}) + DONE

    # -- documents ---------------------------------------------------------------------------------

    def answers(self) -> Sequence[Answer]:
        return [Answer() for _ in range(self._choices)]

    def document(self, answers: Sequence[Answer], usage: Usage) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "text": self._echo(index) + answer.text,
                "logprobs": self._all_logprobs(index, answer),
                "finish_reason": answer.finish_reason,
                **self._scores(answer),
                **self._facts.of_prompt(index),
                **self._facts.of_answer(answer),
            }
            for index, answer in enumerate(answers)
        ]
        return {**self._head, "choices": choices, "usage": usage_info(usage)}

    def _echo(self, index: int) -> str:
        return (self._prompts[index].text or "") if self._echoes else ""

    def _event(
        self,
        index: int,
        text: str = "",
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
            **self._facts.of_choice(index),
        }
        return {**self._head, "choices": [choice], **(self._facts.of_event(index) or self._usage)}

    def _all_logprobs(self, index: int, answer: Answer) -> dict[str, Any] | None:
        """Those of the echo, if it has any, and of the answer."""
        echoed = self._echoed(index, answer.prompt_logprobs) if self._scores_echo else None
        told = self._logprobs(index, answer.logprobs)
        if echoed is None or told is None:
            return echoed or told
        return {name: [*values, *told[name]] for name, values in echoed.items()}

    def _scores(self, answer: Answer) -> dict[str, Any]:
        if not answer.prompt_logprobs or not self._tells_scores:
            return {}
        return {"prompt_logprobs": prompt_logprobs(answer.prompt_logprobs)}

    def _echoed(self, index: int, entries: Sequence[TokenLogprob]) -> dict[str, Any]:
        """As `_logprobs`, of the prompt: of its first token none is known."""
        text = self._echo(index)
        told = _columns(entries, list(_offsets(text, entries)))
        told["token_logprobs"][0] = told["top_logprobs"][0] = None
        self._offsets[index] = len(text)
        return told

    def _logprobs(self, index: int, entries: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        """Parallel lists; offsets count characters of the answer and go on from event to event."""
        if not entries:
            return None
        offsets = []
        for entry in entries:
            offsets.append(self._offsets.setdefault(index, 0))
            self._offsets[index] += len(printable(entry.chosen.text))
        return _columns(entries, offsets)


def _columns(entries: Sequence[TokenLogprob], offsets: list[int]) -> dict[str, Any]:
    return {
        "tokens": [printable(entry.chosen.text) for entry in entries],
        "token_logprobs": [entry.chosen.logprob for entry in entries],
        # The token that was drawn is always among them, as an entry more if it is none of the best.
        "top_logprobs": [{printable(c.text): c.logprob for c in (*e.top, e.chosen)} for e in entries],
        "text_offset": offsets,
    }


def _offsets(text: str, entries: Sequence[TokenLogprob]) -> Iterator[int]:
    """Where the tokens of ``text`` begin in it. Some are no part of it, as what begins every text is none."""
    raw, place, offset = text.encode("utf-8", "replace"), 0, 0
    for entry in entries:
        yield offset
        token = entry.chosen.text
        if not place and not raw.startswith(token):
            token = token.removeprefix(b" ")  # that some vocabularies put in front of a text
        if raw.startswith(token, place):
            place += len(token)
            offset += sum(byte & 0xC0 != 0x80 for byte in token)  # characters that begin in it
