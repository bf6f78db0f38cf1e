"""One request on its way through the engine thread."""

from __future__ import annotations

from typing import NamedTuple

from engines.base import Chunk, FinishReason, GenerationRequest, TokenLogprob, Usage
from engines.stream import ChunkStream
from engines.text.output import TextAssembler


class Drawn(NamedTuple):
    """A token that a step drew for the sequence ``uid``; ``ended`` says that it ends the text."""

    uid: int
    token: int
    ended: bool
    logprob: TokenLogprob | None


class Sequence:
    """The prompt followed by what was generated, and what turns new tokens into text.

    ``uid`` is the batch's name for it while it is in the batch. ``cached`` tokens of the prompt came from
    the prefix cache when it first was.
    """

    __slots__ = (
        "_assembler",
        "_limit",
        "cached",
        "generated",
        "is_prefilling",
        "request",
        "stream",
        "tokens",
        "uid",
    )

    def __init__(
        self, request: GenerationRequest, stream: ChunkStream, assembler: TextAssembler, limit: int
    ) -> None:
        """``assembler`` has what was generated elsewhere; ``limit`` is the most tokens of the answer, more
        than these."""
        self.request = request
        self.stream = stream
        self.tokens = [*request.prompt.token_ids, *request.generated]
        self.generated = len(request.generated)
        self.is_prefilling = True
        self.uid: int | None = None
        self.cached: int | None = None
        self._assembler = assembler
        self._limit = limit

    @property
    def to_generate(self) -> int:
        """Most tokens that are still to come."""
        return self._limit - self.generated

    def extend(self, token: int, piece: bytes, logprob: TokenLogprob | None) -> Chunk:
        """Take a generated token; the chunk has a finish reason if the sequence ends with it."""
        self.tokens.append(token)
        self.generated += 1
        self.is_prefilling = False
        released = self._assembler.push(piece, logprob)
        if released.stopped:
            return self._last((token,), released.text, released.logprobs, "stop")
        if self.to_generate <= 0:
            rest = self._assembler.finish()
            return self._last(
                (token,), released.text + rest.text, released.logprobs + rest.logprobs, "length"
            )
        return Chunk(released.text, (token,), released.logprobs)

    def end(self) -> Chunk:
        """The model ended its text: its end token counts, but is not part of the text."""
        self.generated += 1
        rest = self._assembler.finish()
        return self._last((), rest.text, rest.logprobs, "stop")

    def _last(
        self, token_ids: tuple[int, ...], text: str, logprobs: tuple[TokenLogprob, ...], reason: FinishReason
    ) -> Chunk:
        usage = Usage(len(self.request.prompt.token_ids), self.generated, self.cached or 0)
        return Chunk(text, token_ids, logprobs, reason, usage)
