"""One request on its way through an engine thread."""

from __future__ import annotations

from engines.base import Chunk, FinishReason, GenerationRequest, TokenLogprob, Usage
from engines.stream import ChunkStream
from engines.text.output import Released, TextAssembler


class Sequence:
    """The tokens of one request, and the only place where new ones become chunks.

    ``tokens`` is the prompt followed by the answer so far, drawn here or by another backend;
    ``completion_tokens`` counts the answer's, its end token included. ``cached`` tokens of the prompt came
    from the prefix cache when the sequence was first admitted; None until then. ``prompt_logprobs`` are those
    that are known so far, None where nobody wants them or they were told.
    """

    __slots__ = (
        "_assembler",
        "_limit",
        "cached",
        "completion_tokens",
        "prompt_logprobs",
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
        self.prompt_logprobs: list[TokenLogprob] | None = None if request.prompt_logprobs is None else []
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
    def unscored(self) -> int:
        """Tokens of the prompt whose log probabilities are still to be computed."""
        known = self.prompt_logprobs
        return 0 if known is None else len(self.request.prompt.token_ids) - len(known)

    def extend(self, token: int, piece: bytes, logprob: TokenLogprob | None) -> Chunk:
        """Take a drawn token, which adds ``piece`` to the text; the last chunk if the answer ends with it."""
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
        released = self._assembler.push(piece, logprob) if piece or logprob else Released()
        rest = self._assembler.finish()
        return self._last((), released.text + rest.text, released.logprobs + rest.logprobs, "stop")

    def end_of_prompt(self) -> Chunk:
        """The last chunk of a sequence of which nothing was to be generated."""
        return self._last((), "", (), "length")

    def _last(
        self, token_ids: tuple[int, ...], text: str, logprobs: tuple[TokenLogprob, ...], reason: FinishReason
    ) -> Chunk:
        usage = Usage(len(self.request.prompt.token_ids), self.completion_tokens, self.cached or 0)
        return Chunk(text, token_ids, logprobs, reason, usage)
