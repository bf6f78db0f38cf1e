"""Assembly of text from the bytes of tokens: whole characters, no stop strings."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from engines.base import Chunk, FinishReason, GenerationRequest, TokenLogprob, ToolCallDelta, Usage
from engines.text.answers.stops import StopMatcher
from engines.text.tokens.detokenizer import Utf8Stream


class Released(NamedTuple):
    """Parts of an answer that became certain; ``stopped`` says that a stop string was found so far, and
    ``stop`` which.

    A named tuple, as one is made for every token: a frozen dataclass costs twice as much.
    """

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    stopped: bool = False
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    stop: str = ""

    def then(self, rest: Released) -> Released:
        """Both together, in order."""
        return Released(
            self.text + rest.text,
            self.logprobs + rest.logprobs,
            self.stopped or rest.stopped,
            self.reasoning + rest.reasoning,
            self.tool_calls + rest.tool_calls,
            self.stop or rest.stop,
        )

    def with_end(self, request: GenerationRequest, logprob: TokenLogprob | None) -> Released:
        """With the log probability of the token that ended the answer, which has no part in its text: that is
        told where those of the prompt are, as who adds them up needs it."""
        if logprob is None or request.prompt_logprobs is None or request.include_stop:
            return self
        return self._replace(logprobs=(*self.logprobs, logprob))

    def chunk(
        self,
        token_ids: tuple[int, ...],
        finish_reason: FinishReason | None = None,
        usage: Usage | None = None,
    ) -> Chunk:
        return Chunk(
            self.text,
            token_ids,
            self.logprobs,
            finish_reason,
            usage,
            self.reasoning,
            self.tool_calls,
            stop=self.stop,
        )


class TextAssembler:
    """The output of one sequence.

    A token's log probabilities are released when the last character it has a part in is, so that
    they say no more than the text does; those of discarded text are dropped.
    """

    __slots__ = ("_decoded", "_logprobs", "_matcher", "_plain", "_released", "_stop", "_stopped", "_utf8")

    def __init__(
        self, stops: tuple[str, ...] = (), want_logprobs: bool = False, *, include_stop: bool = False
    ) -> None:
        """``include_stop``: the stop string that ends the output is part of it."""
        self._utf8 = Utf8Stream()
        self._matcher = StopMatcher(stops, keeps=include_stop) if any(stops) else None
        self._logprobs: deque[tuple[int, TokenLogprob]] | None = deque() if want_logprobs else None
        self._plain = self._matcher is None and not want_logprobs
        self._decoded = 0  # characters that left the decoder
        self._released = 0  # characters that were handed out
        self._stopped = False
        self._stop = ""

    def push(self, piece: bytes, logprob: TokenLogprob | None = None) -> Released:
        """Take one token's bytes. After a stop string, everything is discarded."""
        if self._plain:
            return Released(self._utf8.feed(piece))
        if self._stopped:
            return self.stopped()
        text = self._utf8.feed(piece)
        self._decoded += len(text)
        if logprob is not None and self._logprobs is not None:
            # A character still in the decoder will be one more character of text.
            self._logprobs.append((self._decoded + self._utf8.pending, logprob))
        return self._release(self._match(text))

    def take(self, text: str, logprobs: Sequence[TokenLogprob]) -> Released:
        """Take whole characters, and the log probabilities of the tokens that they came from."""
        self._decoded += len(text)
        if self._logprobs is not None:
            self._logprobs.extend((self._decoded, logprob) for logprob in logprobs)
        return self._release(self._match(text))

    def finish(self) -> Released:
        """Generation ended: everything that was held back, unless a stop string was found."""
        text = self._utf8.flush()
        if self._plain:
            return Released(text)
        text = self._match(text)
        if self._matcher is not None and not self._stopped:
            text += self._matcher.flush()
        return self._release(text)

    def stopped(self) -> Released:
        """What there is after a stop string: nothing but that it was found."""
        return Released(stopped=True, stop=self._stop)

    def _match(self, text: str) -> str:
        if self._matcher is None:
            return text
        text, self._stopped = self._matcher.feed(text)
        self._stop = self._matcher.found
        return text

    def _release(self, text: str) -> Released:
        self._released += len(text)
        waiting = self._logprobs
        if not waiting:
            return Released(text, (), self._stopped, stop=self._stop)
        ready: list[TokenLogprob] = []
        while waiting and waiting[0][0] <= self._released:
            ready.append(waiting.popleft()[1])
        if self._stopped:
            waiting.clear()
        return Released(text, tuple(ready), self._stopped, stop=self._stop)
