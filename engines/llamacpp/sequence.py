"""One request on its way through llama.cpp's engine thread."""

from __future__ import annotations

from engines.base import GenerationRequest
from engines.batching.sequence import Sequence
from engines.llamacpp.adapters import LlamaAdapter
from engines.llamacpp.drafting import NgramDrafter
from engines.llamacpp.media.spans import NO_SPANS, Run, Spans
from engines.llamacpp.sampler import Sampler
from engines.stream import ChunkStream
from engines.text.answers.output import Output

NO_SLOT = -1


class LlamaSequence(Sequence):
    """A sequence, how many of its tokens the KV cache holds, and what draws the next one.

    ``computed`` tokens are in KV slot ``slot``. While running at least one is pending: exactly one means
    decode, more mean prefill. ``waits_for`` is a running sequence and how many tokens of it are to be
    computed before this one is admitted, to share them. ``drafter`` guesses tokens; None: nobody does.
    ``adapter`` is the LoRA adapter that it is computed with, which prefixes are shared by too. ``spans`` are
    where media stand in the prompt.
    """

    __slots__ = ("adapter", "arrival", "computed", "drafter", "sampler", "slot", "spans", "waits_for")

    def __init__(
        self,
        request: GenerationRequest,
        stream: ChunkStream,
        output: Output,
        limit: int,
        sampler: Sampler,
        drafter: NgramDrafter | None = None,
        adapter: LlamaAdapter | None = None,
        spans: Spans = NO_SPANS,
    ) -> None:
        super().__init__(request, stream, output, limit)
        self.sampler = sampler
        self.drafter = drafter
        self.adapter = adapter
        self.spans = spans
        self.computed = 0
        self.slot = NO_SLOT
        self.arrival = 0
        self.waits_for: tuple[LlamaSequence, int] | None = None

    @property
    def pending(self) -> int:
        """Tokens whose KV is still to be computed."""
        return len(self.tokens) - self.computed

    @property
    def run(self) -> Run:
        """The tokens of one kind, text or a medium's, of which the next one to be computed is."""
        return self.spans.run(self.computed, len(self.tokens))

    @property
    def scores(self) -> bool:
        """Whether the log probability of the token behind the next one to be computed is still to be told."""
        return bool(self.unscored) and self.computed >= self.scored_up_to

    @property
    def scored_up_to(self) -> int:
        """The token of the prompt whose logits tell the next log probability."""
        return max(0, len(self.prompt_logprobs or ()) - 1)

    @property
    def is_prefilling(self) -> bool:
        return len(self.tokens) - self.computed > 1

    @property
    def awaits_prefix(self) -> bool:
        """Whether the sequence in ``waits_for`` still runs and has yet to compute what is to be shared."""
        if self.waits_for is None:
            return False
        other, length = self.waits_for
        return other.slot != NO_SLOT and other.computed < length
