"""Writer of text completions: ``text_completion``, streamed in pieces of the same shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.dialects.openai.events import TextFrames, TokenFacts, now, printable, usage_info
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
        facts = self._facts = TokenFacts(task, context)
        # Of an answer that another backend began, the echo was sent there.
        self._has_opening = begun is None and (task.echo or task.tell_token_ids)
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
        if chunk.logprobs:
            data = sse(self._event(index, chunk.text, chunk.logprobs))
        elif chunk.text:
            data = self._frames.frame(index, chunk.text)
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
                "logprobs": self._logprobs(index, answer.logprobs),
                "finish_reason": answer.finish_reason,
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
        logprobs: Sequence[TokenLogprob] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(index, logprobs),
            "finish_reason": finish_reason,
            **self._facts.of_choice(index),
        }
        return {**self._head, "choices": [choice], **(self._facts.of_event(index) or self._usage)}

    def _logprobs(self, index: int, entries: Sequence[TokenLogprob]) -> Any:
        """Parallel lists; offsets count characters of the answer and go on from event to event."""
        if not entries:
            return None
        tokens = [printable(entry.chosen.text) for entry in entries]
        offsets = []
        for token in tokens:
            offsets.append(self._offsets.setdefault(index, 0))
            self._offsets[index] += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [entry.chosen.logprob for entry in entries],
            # The token that was drawn is always among them, as an entry more if it is none of the best.
            "top_logprobs": [{printable(c.text): c.logprob for c in (*e.top, e.chosen)} for e in entries],
            "text_offset": offsets,
        }
