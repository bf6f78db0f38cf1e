"""One step of llama.cpp: schedule, run the forward pass, draw. Belongs to the engine thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence as Seq
from typing import Any, Protocol

from engines.base import Candidate, EngineInfo, TokenLogprob
from engines.batching.stepper import Drawn, Failed, Gauges, Read
from engines.errors import EngineError
from engines.llamacpp.adapters import LlamaAdapter
from engines.llamacpp.context import KvCacheFull, Logits, Slice
from engines.llamacpp.drafting import DraftCounts
from engines.llamacpp.kv_cache import CellMemory, KvCache
from engines.llamacpp.model import LlamaModel
from engines.llamacpp.pacing import LlamaPacer
from engines.llamacpp.sampler import Row, draw_among, log_probabilities, token_logprob
from engines.llamacpp.scheduler import LlamaScheduler
from engines.llamacpp.sequence import NO_SLOT, LlamaSequence
from engines.llamacpp.turns import by_adapter
from engines.llamacpp.work import Work
from engines.text import grammar

logger = logging.getLogger("engines.llamacpp")

Next = Drawn[LlamaSequence] | Failed[LlamaSequence]
Results = list[Drawn[LlamaSequence] | Read[LlamaSequence] | Failed[LlamaSequence]]


class ForwardPass(CellMemory, Protocol):
    """The part of a context that a step needs; `LlamaContext` is one."""

    batch_size: int
    pooled: bool

    def decode(self, slices: Seq[Slice]) -> Logits: ...

    def adapt(self, adapter: LlamaAdapter | None) -> None: ...

    def sample(self, chain: Any, row: int) -> int: ...

    def close(self) -> None: ...


class LlamaStepper:
    """Owns the context and the scheduler; a `Stepper`."""

    def __init__(
        self,
        model: LlamaModel,
        context: ForwardPass,
        kv: KvCache,
        scheduler: LlamaScheduler,
        pacer: LlamaPacer,
        info: EngineInfo,
    ) -> None:
        self.info = info
        self.drafts = DraftCounts()
        self.vocabulary = model
        self._context = context
        self._kv = kv
        self._scheduler = scheduler
        self._pacer = pacer
        self._adapter: LlamaAdapter | None = None  # that the context computes with

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    def submit(self, sequence: LlamaSequence) -> None:
        if sequence.prompt_logprobs is not None:
            first = sequence.tokens[0]
            sequence.prompt_logprobs.append(TokenLogprob(Candidate(first, self.vocabulary.label(first), 0.0)))
        self._scheduler.submit(sequence)

    def remove(self, sequence: LlamaSequence) -> None:
        self._scheduler.remove(sequence)
        sequence.sampler.close()

    def step(self) -> Results:
        scheduler = self._scheduler
        results: Results = []
        work = scheduler.schedule(self._pacer.budget(scheduler.decoding, scheduler.prefilling))
        if not work:
            return results
        started = time.perf_counter()
        decoded = sum(not w.sequence.is_prefilling for w in work)
        prefilled = sum(w.count for w in work) - decoded
        drafts = any(w.draft for w in work)
        for part in self._passes(work):
            # An earlier pass may have had to preempt what this one meant to compute.
            if still_placed := [w for w in part if w.sequence.slot != NO_SLOT]:
                results += self._run_pass(still_placed)
        if not drafts:  # such a step says little of others
            self._pacer.observe(decoded=decoded, prefilled=prefilled, seconds=time.perf_counter() - started)
        return results

    def gauges(self) -> Gauges:
        scheduler = self._scheduler
        return Gauges(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_used=scheduler.cells_in_use,
            kv_total=self._kv.cells,
            preemptions=scheduler.preemptions,
        )

    def forget(self, adapter: LlamaAdapter) -> None:
        """Let go of an adapter that no sequence has any more."""
        self._scheduler.forget(adapter)
        if self._adapter is adapter:
            self._turn_to(None)

    def close(self) -> None:
        self._context.close()

    def _passes(self, work: list[Work]) -> list[list[Work]]:
        """The work of a step by forward pass: each adapter has its own, that of the last pass goes first."""
        return [part for group in by_adapter(work, self._adapter) for part in self._parts(group)]

    def _parts(self, work: list[Work]) -> list[list[Work]]:
        """With cells of their own, sequences are padded to the longest in the pass: a long prompt must not
        make every stream's decode as long as itself. Each medium has a pass of its own."""
        media = [[w] for w in work if w.is_of_media]
        text = [w for w in work if not w.is_of_media]
        decode = [w for w in text if not w.sequence.is_prefilling]
        prefill = [w for w in text if w.sequence.is_prefilling]
        parts = [text] if self._context.pooled else [decode, prefill]
        return [part for part in (*parts, *media) if part]

    def _run_pass(self, work: list[Work]) -> Results:
        try:
            logits = self._decode(work)
        except KvCacheFull as error:
            return self._relieve(work, error)
        except Exception as error:
            if work[0].is_of_media:  # what llama.cpp leaves of such a pass cannot be cut off
                logger.exception("a forward pass of a picture or sound failed")
                return [self._fail(work[0].sequence, EngineError(f"the forward pass failed: {error}"))]
            logger.exception("a forward pass failed; its sequences are tried one by one")
            return self._isolate(work)
        return self._postprocess(work, logits)

    def _decode(self, work: list[Work]) -> Logits:
        """Run a forward pass, and find out meanwhile which tokens may come next."""
        if (adapter := work[0].sequence.adapter) is not self._adapter:
            self._turn_to(adapter)
        masks = [mask for w in work if w.completes and (mask := w.sequence.next_mask) is not None]
        grammar.start(masks)
        try:
            return self._context.decode([_slice(w) for w in work])
        finally:
            for mask in masks:
                mask.wait()  # the vocabulary that they look at may go

    def _postprocess(self, work: list[Work], logits: Logits) -> Results:
        """Note what was computed and draw the next token of every sequence whose prompt is complete."""
        complete: list[Work] = []
        rows: list[int] = []
        results: Results = []
        end = 0  # of the rows of what was looked at
        for item in work:
            start, end = end, end + item.outputs
            if item.scores:
                self._score(item.sequence, logits[start:end])
            if item.completes and not item.sequence.to_generate:
                results.append(Read(item.sequence))
            elif item.completes:
                complete.append(item)
                rows.append(start if item.draft else end - 1)
            self._scheduler.commit(item)
        drawn = self._draw([item.sequence for item in complete], rows, logits)
        results += drawn
        for row, item, first in zip(rows, complete, drawn, strict=True):
            if item.draft:
                results += self._verify(item, row, first, logits)
        return results

    def _score(self, sequence: LlamaSequence, rows: Logits) -> None:
        """Note the log probabilities of the tokens of a prompt, each of which the row before it tells."""
        known, top = sequence.prompt_logprobs, sequence.request.prompt_logprobs or 0
        assert known is not None
        for row in rows[: sequence.unscored]:
            token = sequence.tokens[len(known)]
            known.append(token_logprob(self.vocabulary, log_probabilities(row), token, top))

    def _verify(self, work: Work, row: int, drawn: Next, logits: Logits) -> list[Next]:
        """Draw on, row after row, as long as what is ``drawn`` is what the draft of ``work`` foretold: so all
        that is drawn is what would have come without a draft, whatever the way of drawing."""
        results: list[Next] = []
        draft, accepted = work.draft, 0
        while isinstance(drawn, Drawn) and accepted < len(draft) and drawn.token == draft[accepted]:
            if self.vocabulary.is_end(drawn.token):
                break
            accepted += 1
            [drawn] = self._draw([work.sequence], [row + accepted], logits)
            results.append(drawn)
        if isinstance(drawn, Drawn):
            self._scheduler.accept(work, accepted)
        self.drafts.drafted += len(draft)
        self.drafts.accepted += accepted
        return results

    def _draw(self, sequences: list[LlamaSequence], rows: list[int], logits: Logits) -> list[Next]:
        """The next token of each of ``sequences``, whose logits are in ``rows``."""
        told: list[Row | None] = []
        errors: list[EngineError | None] = []
        for row, sequence in zip(rows, sequences, strict=True):
            wants = sequence.request.logprobs is not None
            told.append(log_probabilities(logits[row]) if wants else None)
            errors.append(_edit(sequence, logits[row]))
        results: list[Next] = []
        for row, sequence, logprobs, failure in zip(rows, sequences, told, errors, strict=True):
            if failure is not None:
                results.append(self._fail(sequence, failure))
                continue
            try:
                chain, left = sequence.sampler.chain, sequence.sampler.left
                if chain is None:
                    token = int(logits[row].argmax())
                elif left is None:
                    token = self._context.sample(chain, row)
                else:
                    token = draw_among(chain, logits[row], left)
                sequence.sampler.accept(token)
                results.append(Drawn(sequence, token, self._logprob(sequence, token, logprobs)))
            except Exception as error:
                logger.exception("sampling failed for one sequence")
                results.append(self._fail(sequence, EngineError(f"sampling failed: {error!r}")))
        return results

    def _logprob(self, sequence: LlamaSequence, token: int, logprobs: Row | None) -> TokenLogprob | None:
        if logprobs is None:
            return None
        # The end token is no part of the text, and neither are its probabilities.
        if self.vocabulary.is_end(token) and sequence.request.prompt_logprobs is None:
            return None
        request = sequence.request
        return token_logprob(
            self.vocabulary, logprobs, token, request.logprobs or 0, request.logprob_token_ids
        )

    def _turn_to(self, adapter: LlamaAdapter | None) -> None:
        self._context.adapt(adapter)
        self._adapter = adapter

    def _relieve(self, work: list[Work], error: KvCacheFull) -> Results:
        """Make room after a pass found no cells. The mirror of the cells should make that impossible; if it
        happens, no sequence fails for it that could run later."""
        logger.warning("the KV cache is fuller than accounted for: %s", error)
        return [] if self._scheduler.relieve() else self._isolate(work)

    def _isolate(self, work: list[Work]) -> Results:
        """Run each sequence alone, so that only those that fail by themselves fail."""
        for item in work:
            self._kv.restore(item.sequence.slot)
        results: Results = []
        for item in work:
            item.draft = ()
            try:
                logits = self._decode([item])
            except Exception as error:
                reason = EngineError(f"the forward pass failed: {error}")
                results.append(self._fail(item.sequence, reason))
            else:
                results += self._postprocess([item], logits)
        return results

    def _fail(self, sequence: LlamaSequence, error: EngineError) -> Failed[LlamaSequence]:
        self._scheduler.discard(sequence)
        sequence.sampler.close()
        return Failed(sequence, error)


def _edit(sequence: LlamaSequence, row: Row) -> EngineError | None:
    """Edit the logits of ``sequence``; the error if nothing can be drawn from them."""
    try:
        sequence.sampler.edit(row, sequence.next_mask)
    except EngineError as error:
        return error
    return None


def _slice(work: Work) -> Slice:
    sequence = work.sequence
    start = sequence.computed
    tokens = sequence.tokens[start : start + work.count]
    return Slice(sequence.slot, start, [*tokens, *work.draft], work.outputs, sequence.run.span)
