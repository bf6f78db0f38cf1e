"""Scheduler: the tokens of the next step. The whole policy, without model, thread or clock.

Decode goes first, one token of every running sequence; then prefill of admitted prompts within a
budget; then admission, in the order of the queue. When cells run short, cached prefixes go first (least
recently used), then the youngest running sequence is preempted: it gives up its cells and is computed
again later.
"""

from __future__ import annotations

from itertools import takewhile

from engines.batching.waiting import WaitingQueue
from engines.llamacpp.adapters import LlamaAdapter
from engines.llamacpp.kv_cache import KvCache
from engines.llamacpp.prefix_cache import ALIGNMENT, LlamaPrefixCache, SharedPrefix
from engines.llamacpp.sequence import NO_SLOT, LlamaSequence
from engines.llamacpp.work import Work

# Room a running sequence is left to grow in, at most, before a new one is admitted. Too little means
# preemption, which computes a whole sequence again; too much leaves cells idle.
GROWTH_RESERVE = 64


class LlamaScheduler:
    """The waiting and the running sequences.

    ``batch_size`` is the most tokens of a step. With ``deterministic`` greedy and seeded requests that run
    alone repeat themselves: their prompts go in steps of ``piece`` tokens, a part of `ALIGNMENT`, or of some
    multiple of `ALIGNMENT`. Log probabilities of prompts are computed for ``scored_at_once`` tokens a step,
    which computes at most ``drafts`` drafted tokens.
    """

    def __init__(
        self,
        kv: KvCache,
        prefixes: LlamaPrefixCache,
        *,
        max_running: int,
        batch_size: int,
        piece: int = ALIGNMENT,
        deterministic: bool = True,
        scored_at_once: int = 32,
        drafts: int = 0,
    ) -> None:
        self.waiting: WaitingQueue[LlamaSequence] = WaitingQueue()
        self.running: list[LlamaSequence] = []
        self.preemptions = 0
        self._kv = kv
        self._prefixes = prefixes
        self._max_running = max_running
        self._batch_size = batch_size
        self._alone = piece
        self._deterministic = deterministic
        self._scored_at_once = scored_at_once
        self._drafts = drafts
        self._arrivals = 0

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def decoding(self) -> int:
        return sum(not s.is_prefilling for s in self.running)

    @property
    def prefilling(self) -> int:
        """Prompts that are being prefilled or wait for it."""
        return len(self.running) + len(self.waiting) - self.decoding

    @property
    def cells_in_use(self) -> int:
        """Cells that running sequences hold; what only the prefix cache holds can be had at once."""
        return self._kv.distinct(self._busy_slots())

    def submit(self, sequence: LlamaSequence) -> None:
        self._arrivals += 1
        sequence.arrival = self._arrivals
        self.waiting.add(sequence)

    def remove(self, sequence: LlamaSequence) -> None:
        """Forget a sequence, wherever it is; what it computed stays as a cached prefix."""
        if sequence in self.running:
            slot = self._leave(sequence)
            kept = sequence.spans.whole(min(sequence.computed, len(sequence.tokens)))
            if sequence.computed > kept:  # it ended inside a draft, or inside a picture
                self._kv.shrink(slot, kept)
            self._prefixes.keep(slot, sequence.tokens[:kept], sequence.adapter)
            self._prefixes.trim(self._busy_slots())
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def forget(self, adapter: LlamaAdapter) -> None:
        """Drop what is cached of an adapter that goes."""
        self._prefixes.forget(adapter)

    def discard(self, sequence: LlamaSequence) -> None:
        """Take a running sequence out and drop its cells: they may hold anything."""
        self._kv.release(self._leave(sequence))

    def schedule(self, prefill_budget: int) -> list[Work]:
        """The next step's work; empty only if nothing runs and nothing waits."""
        work = self._decode()
        if self._drafts and len(work) == len(self.running) == 1:
            self._add_draft(work[0])
        budget = min(prefill_budget, self._batch_size - sum(w.size for w in work))
        budget -= self._prefill(work, budget)
        self._admit(work, budget)
        if not work and self.running:
            # Every running prompt lacks cells and none decodes: the youngest makes room.
            self._preempt_youngest()
            return self.schedule(prefill_budget)
        # llama.cpp puts slots of a split cache into one forward pass only if they come in order.
        return sorted(work, key=lambda w: w.sequence.slot)

    def commit(self, work: Work) -> None:
        """Note that ``work`` was computed, whatever becomes of its draft."""
        self._kv.grow(work.sequence.slot, work.count)
        work.sequence.computed += work.count

    def accept(self, work: Work, count: int) -> None:
        """Keep the first ``count`` tokens of a draft that was computed, and drop the others."""
        slot = work.sequence.slot
        self._kv.grow(slot, count)
        work.sequence.computed += count
        if count < len(work.draft):
            self._kv.restore(slot)

    def relieve(self) -> bool:
        """Make all the room there is without failing anyone; False if the only sequence left needs more."""
        self._prefixes.clear()
        if len(self.running) < 2:
            return False
        self._preempt_youngest()
        return True

    def _decode(self) -> list[Work]:
        """The next token of every sequence that decodes; the youngest sequences give way to it."""
        while True:
            decoding = [s for s in self.running if not s.is_prefilling]
            self._prefixes.make_room(len(decoding))
            if self._kv.free_cells >= len(decoding):
                return [Work(s, 1) for s in decoding]
            self._preempt_youngest()

    def _add_draft(self, work: Work) -> None:
        """Let a sequence that runs alone guess what comes next: where several decode, a token that one of
        them drafts costs the others time, on CPUs as much as a token of their own. A mask must see each token
        before it can tell the next ones."""
        sequence = work.sequence
        most = min(self._drafts, sequence.to_generate - 1, self._kv.free_cells - work.count)
        if sequence.drafter is not None and sequence.mask is None and most > 0:
            draft = sequence.drafter.draft(sequence.tokens, most)
            # What followed these tokens before may have been a picture.
            work.draft = list(takewhile(lambda token: token >= 0, draft)) if sequence.spans else draft

    def _prefill(self, work: list[Work], budget: int) -> int:
        """Continue running prompts, oldest first; returns the tokens scheduled."""
        spent = 0
        for sequence in self.running:
            if sequence.is_prefilling and spent < budget:
                spent += self._add_prefill(work, sequence, budget - spent)
        return spent

    def _admit(self, work: list[Work], budget: int) -> None:
        """Start waiting sequences in their order, past those that wait for another's prefill."""
        if not self.running and self.waiting and self._repeats(sequence := next(iter(self.waiting))):
            self._start(sequence, self._prefixes.open_alone(sequence))
            self._add_prefill(work, sequence, budget)
            return
        for sequence in list(self.waiting):
            if budget <= 0 or len(self.running) >= self._max_running:
                return
            if sequence.awaits_prefix:
                continue
            prefix = self._prefixes.longest(sequence, self.running)
            sequence.waits_for = self._prefixes.worth_waiting_for(sequence, prefix, self.running)
            if sequence.waits_for is not None:
                continue
            if not self._has_room(sequence, prefix):
                return
            planned = sum(w.size for w in work)
            self._start(sequence, self._prefixes.open(prefix, self._busy_slots(), planned))
            budget -= self._add_prefill(work, sequence, budget)

    def _add_prefill(self, work: list[Work], sequence: LlamaSequence, budget: int) -> int:
        """Plan as much of a prompt as budget and cells allow; returns the tokens scheduled."""
        planned = sum(w.size for w in work)
        wanted = min(self._piece(sequence, budget), self._scorable(work, sequence))
        if wanted <= 0:
            return 0
        self._prefixes.make_room(planned + wanted)
        count = min(wanted, self._kv.free_cells - planned)
        if count <= 0 or (count < wanted and sequence.run.is_whole):
            return 0
        work.append(Work(sequence, count))
        return count

    def _scorable(self, work: list[Work], sequence: LlamaSequence) -> int:
        """How much of a prompt one step can compute, for its log probabilities' sake."""
        if not sequence.unscored:
            return self._batch_size
        if not sequence.scores:  # it was preempted: so much was told of before
            return sequence.scored_up_to - sequence.computed
        return self._scored_at_once - sum(each.count for each in work if each.scores)

    def _repeats(self, sequence: LlamaSequence) -> bool:
        """Whether ``sequence`` is computed so that it gives the same answer each time. That costs a part of
        what is cached, so it is for those only that ask for the same answer."""
        sampling = sequence.request.sampling
        asks = sampling.is_greedy or sampling.seed is not None
        return self._deterministic and asks and self._is_alone(sequence)

    def _is_alone(self, sequence: LlamaSequence) -> bool:
        """Whether nothing else is computed beside ``sequence`` but further answers to the same prompt, which
        begin together after it."""
        if self._max_running == 1:
            return True
        prompt = sequence.request.prompt
        return all(other.request.prompt is prompt for each in (self.running, self.waiting) for other in each)

    def _piece(self, sequence: LlamaSequence, budget: int) -> int:
        """How much of a prompt is prefilled next. One that repeats itself goes in the same pieces however
        much of it was cached: see `ALIGNMENT`."""
        run = sequence.run
        if run.is_whole:
            return run.end - sequence.computed if budget > 0 else 0
        if not self._repeats(sequence):
            return min(run.end - sequence.computed, budget)
        done, total, piece = sequence.computed - run.start, run.end - run.start, self._alone
        size = piece if piece < ALIGNMENT else max(budget - budget % ALIGNMENT, ALIGNMENT)
        end = done - done % piece + size
        last = total - total % piece
        return min((min(end, last) if done < last else total) - done, self._batch_size)

    def _has_room(self, sequence: LlamaSequence, prefix: SharedPrefix) -> bool:
        """Whether the whole prompt fits beside what the running sequences still need."""
        if not self.running:
            return True
        promised = sum(s.pending + min(s.to_generate, GROWTH_RESERVE) for s in self.running)
        shared = 0 if prefix.stashed else prefix.length
        return self._kv.cells - self.cells_in_use >= promised + len(sequence.tokens) - shared

    def _start(self, sequence: LlamaSequence, opened: SharedPrefix) -> None:
        """Let a waiting sequence run in the slot that was opened for it."""
        self.waiting.remove(sequence)
        sequence.slot, sequence.computed, _ = opened
        if sequence.cached is None:
            sequence.cached = min(opened.length, len(sequence.request.prompt.token_ids))
        self.running.append(sequence)
        self._prefixes.trim(self._busy_slots())

    def _preempt_youngest(self) -> None:
        sequence = max(self.running, key=lambda s: s.arrival)
        self.discard(sequence)
        sequence.computed = 0
        self.waiting.put_back(sequence)
        self.preemptions += 1

    def _leave(self, sequence: LlamaSequence) -> int:
        """Take a running sequence out of its slot, which is returned."""
        self.running.remove(sequence)
        slot, sequence.slot = sequence.slot, NO_SLOT
        return slot

    def _busy_slots(self) -> list[int]:
        return [s.slot for s in self.running]
