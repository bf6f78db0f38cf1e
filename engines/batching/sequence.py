"""One request on its way through an engine thread."""

from __future__ import annotations

from engines.base import Chunk, FinishReason, GenerationRequest, TokenLogprob, Usage
from engines.stream import ChunkStream
from engines.text.answers.assembler import Released
from engines.text.answers.output import Output, finish_of
from engines.text.grammar import TokenMask


class Sequence:
    """The tokens of one request, and the only place where new ones become chunks.

    ``tokens`` is the prompt followed by the answer so far, drawn here or by another backend;
    ``completion_tokens`` counts the answer's, its end token included. ``cached`` tokens of the prompt came
    from the prefix cache when the sequence was first admitted; None until then. ``mask`` keeps the answer in
    the form that was asked for; None: any. ``prompt_logprobs`` are those that are known so far, None where
    nobody wants them or they were told. ``has_ended``: its last chunk was made.
    """

    __slots__ = (
        "_limit",
        "_output",
        "cached",
        "completion_tokens",
        "has_ended",
        "mask",
        "prompt_logprobs",
        "request",
        "stream",
        "tokens",
    )

    def __init__(self, request: GenerationRequest, stream: ChunkStream, output: Output, limit: int) -> None:
        """``output`` was fed ``request.generated``; ``limit`` is the most tokens of the answer, more than
        these."""
        self.request = request
        self.stream = stream
        self.tokens = [*request.prompt.token_ids, *request.generated]
        self.completion_tokens = len(request.generated)
        self.cached: int | None = None
        self.has_ended = False
        self.mask: TokenMask | None = None
        self.prompt_logprobs: list[TokenLogprob] | None = None if request.prompt_logprobs is None else []
        self._output = output
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

    @property
    def in_reasoning(self) -> bool:
        """Whether the next token is reasoning, of which no structure is demanded."""
        return self._output.in_reasoning

    @property
    def next_mask(self) -> TokenMask | None:
        """What says which token may come next; None: any."""
        return None if self._output.in_reasoning else self.mask

    def extend(self, token: int, logprob: TokenLogprob | None) -> Chunk:
        """Take a drawn token; the last chunk if the answer ends with it.

        Raises `EngineError` if the structure of the answer forbids it.
        """
        if (mask := self.next_mask) is not None:
            mask.consume(token)
        self.tokens.append(token)
        self.completion_tokens += 1
        released = self._output.push(token, logprob)
        if released.stopped:
            return self._last((token,), released, "stop")
        if self.completion_tokens >= self._limit:
            return self._last((token,), released.then(self._output.finish()), "length")
        return released.chunk((token,))

    def end(self, token: int, logprob: TokenLogprob | None) -> Chunk:
        """The last chunk, after a ``token`` that ends the answer: it counts, and is part of the text if the
        request says so."""
        self.completion_tokens += 1
        released = self._output.push(token, logprob) if self.request.include_stop else Released()
        return self._last((), released.then(self._output.finish()).with_end(self.request, logprob), "stop")

    def end_of_prompt(self) -> Chunk:
        """The last chunk of a sequence of which nothing was to be generated."""
        return self._last((), Released(), "length")

    def _last(self, token_ids: tuple[int, ...], released: Released, reason: FinishReason) -> Chunk:
        self.has_ended = True
        output = self._output
        prompt = len(self.request.prompt.token_ids)
        usage = Usage(prompt, self.completion_tokens, self.cached or 0, output.reasoning_tokens)
        return released.chunk(token_ids, finish_of(reason, output), usage)
