"""One request on its way through an engine thread."""

from __future__ import annotations

from engines.base import Chunk, FinishReason, GenerationRequest, TokenLogprob, Usage
from engines.stream import ChunkStream
from engines.text.grammar import TokenMask
from engines.text.output import Released, TextAssembler


class Sequence:
    """The tokens of one request, and the only place where new ones become chunks.

    ``tokens`` is the prompt followed by the answer so far, drawn here or by another backend;
    ``completion_tokens`` counts the answer's, its end token included. ``cached`` tokens of the prompt came
    from the prefix cache when the sequence was first admitted; None until then. ``mask`` keeps the answer in
    the form that was asked for; None: any. ``has_ended``: its last chunk was made.
    """

    __slots__ = (
        "_assembler",
        "_limit",
        "cached",
        "completion_tokens",
        "has_ended",
        "mask",
        "request",
        "stream",
        "tokens",
    )

    def __init__(
        self, request: GenerationRequest, stream: ChunkStream, assembler: TextAssembler, limit: int
    ) -> None:
        """``assembler`` was fed ``request.generated``; ``limit`` is the most tokens of the answer, more than
        these."""
        self.request = request
        self.stream = stream
        self.tokens = [*request.prompt.token_ids, *request.generated]
        self.completion_tokens = len(request.generated)
        self.cached: int | None = None
        self.has_ended = False
        self.mask: TokenMask | None = None
        self._assembler = assembler
        self._limit = limit

    @property
    def has_output(self) -> bool:
        """Whether some of the answer is there, drawn here or by another backend."""
        return self.completion_tokens > 0

    @property
    def to_generate(self) -> int:
        """Most tokens that are still to come."""
        return self._limit - self.completion_tokens

    @property
    def next_mask(self) -> TokenMask | None:
        """What says which token may come next; None: any."""
        return self.mask

    def extend(self, token: int, piece: bytes, logprob: TokenLogprob | None) -> Chunk:
        """Take a drawn token, which adds ``piece`` to the text; the last chunk if the answer ends with it.

        Raises `EngineError` if the structure of the answer forbids it.
        """
        if (mask := self.next_mask) is not None:
            mask.consume(token)
        self.tokens.append(token)
        self.completion_tokens += 1
        released = self._assembler.push(piece, logprob)
        if released.stopped:
            return self._last((token,), released.text, released.logprobs, "stop")
        if self.completion_tokens >= self._limit:
            rest = self._assembler.finish()
            return self._last(
                (token,), released.text + rest.text, released.logprobs + rest.logprobs, "length"
            )
        return Chunk(released.text, (token,), released.logprobs)

    def end(self, piece: bytes = b"", logprob: TokenLogprob | None = None) -> Chunk:
        """The last chunk, after a token that ends the answer: it counts, and adds ``piece`` to the text."""
        self.completion_tokens += 1
        released = self._assembler.push(piece, logprob) if piece else Released()
        rest = self._assembler.finish()
        return self._last((), released.text + rest.text, released.logprobs + rest.logprobs, "stop")

    def _last(
        self, token_ids: tuple[int, ...], text: str, logprobs: tuple[TokenLogprob, ...], reason: FinishReason
    ) -> Chunk:
        self.has_ended = True
        usage = Usage(len(self.request.prompt.token_ids), self.completion_tokens, self.cached or 0)
        return Chunk(text, token_ids, logprobs, reason, usage)
