"""One request on its way through the engine thread."""

from __future__ import annotations

from engines.base import Chunk, FinishReason, GenerationRequest, TokenLogprob, Usage
from engines.llamacpp.sampler import Sampler
from engines.stream import ChunkStream
from engines.text.output import TextAssembler

NO_SLOT = -1


class Sequence:
    """Tokens, how many of them the KV cache holds, and what turns new ones into text.

    ``tokens`` is the prompt followed by what was generated; ``computed`` of them are in KV slot
    ``slot``, and ``cached`` of the prompt came from the prefix cache. While running at least one token
    is pending: exactly one means decode, more mean prefill.
    """

    __slots__ = (
        "_assembler",
        "_generated",
        "_limit",
        "arrival",
        "cached",
        "computed",
        "request",
        "sampler",
        "slot",
        "stream",
        "tokens",
        "waits_for",
    )

    def __init__(
        self,
        request: GenerationRequest,
        stream: ChunkStream,
        sampler: Sampler,
        assembler: TextAssembler,
        limit: int,
    ) -> None:
        """``assembler`` has what was generated elsewhere; ``limit`` is the most tokens of the answer, more
        than these."""
        self.request = request
        self.stream = stream
        self.sampler = sampler
        self.tokens = [*request.prompt.token_ids, *request.generated]
        self.computed = 0
        self.slot = NO_SLOT
        self.arrival = 0
        self.cached: int | None = None
        self.waits_for: tuple[Sequence, int] | None = None
        self._assembler = assembler
        self._limit = limit
        self._generated = len(request.generated)

    @property
    def pending(self) -> int:
        """Tokens whose KV is still to be computed."""
        return len(self.tokens) - self.computed

    @property
    def is_prefilling(self) -> bool:
        return len(self.tokens) - self.computed > 1

    @property
    def has_begun(self) -> bool:
        """Whether some of its answer is there, from here or from elsewhere."""
        return self._generated > 0

    @property
    def to_generate(self) -> int:
        """Most tokens that are still to come."""
        return self._limit - self._generated

    def extend(self, token: int, piece: bytes, logprob: TokenLogprob | None) -> Chunk:
        """Take a generated token; the chunk has a finish reason if the sequence ends with it."""
        self.tokens.append(token)
        self._generated += 1
        released = self._assembler.push(piece, logprob)
        if released.stopped:
            return self._last((token,), released.text, released.logprobs, "stop")
        if self._generated >= self._limit:
            rest = self._assembler.finish()
            return self._last(
                (token,), released.text + rest.text, released.logprobs + rest.logprobs, "length"
            )
        return Chunk(released.text, (token,), released.logprobs)

    def end(self) -> Chunk:
        """The model ended its text: its end token counts, but is not part of the text."""
        self._generated += 1
        rest = self._assembler.finish()
        return self._last((), rest.text, rest.logprobs, "stop")

    def _last(
        self, token_ids: tuple[int, ...], text: str, logprobs: tuple[TokenLogprob, ...], reason: FinishReason
    ) -> Chunk:
        usage = Usage(len(self.request.prompt.token_ids), self._generated, self.cached or 0)
        return Chunk(text, token_ids, logprobs, reason, usage)
