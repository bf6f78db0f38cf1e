"""The scheduling policy, without a model: a fake memory records what would be done to the KV cache."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engines.base import Candidate, GenerationRequest, Prompt, Sampling, TokenLogprob
from engines.llamacpp.kv_cache import KvCache, PooledKvCache, SplitKvCache, State
from engines.llamacpp.prefix_cache import ALIGNMENT, WORTH_WAITING_FOR, LlamaPrefixCache
from engines.llamacpp.sampler import Sampler
from engines.llamacpp.scheduler import LlamaScheduler
from engines.llamacpp.sequence import LlamaSequence
from engines.llamacpp.stash import Stash
from engines.stream import ChunkStream
from support.output import text_output


class Memory:
    """Keeps what each slot would hold, so that sharing can be checked."""

    def __init__(self) -> None:
        self.copies: list[tuple[int, int, int]] = []
        self.cleared = 0

    def copy(self, source: int, target: int, length: int) -> None:
        self.copies.append((source, target, length))

    def truncate(self, slot: int, length: int) -> None:
        pass

    def save(self, slot: int) -> State:
        return State(np.zeros(1, dtype=np.uint8))

    def load(self, slot: int, state: State) -> bool:
        return True

    def clear(self) -> None:
        self.cleared += 1


SCORE = TokenLogprob(Candidate(1, b"x", -1.0))
GREEDY = Sampling(temperature=0)


class Bench:
    """A scheduler and what the stepper would do around it."""

    def __init__(
        self,
        *,
        cells: int = 1000,
        running: int = 8,
        batch: int = 512,
        cache: bool = True,
        slots: int = 16,
        per_slot: int = 0,
        piece: int = ALIGNMENT,
        deterministic: bool = True,
        scored: int = 32,
    ) -> None:
        self.memory = Memory()
        self.kv: KvCache
        if per_slot:
            self.kv = SplitKvCache(self.memory, per_slot=per_slot, slots=running)
        else:
            self.kv = PooledKvCache(self.memory, cells=cells, slots=slots)
        stash = Stash(self.kv, limit=cells) if isinstance(self.kv, PooledKvCache) else None
        self.prefixes = LlamaPrefixCache(self.kv, enabled=cache, stash=stash)
        self.scheduler = LlamaScheduler(
            self.kv,
            self.prefixes,
            max_running=running,
            batch_size=batch,
            piece=piece,
            deterministic=deterministic,
            scored_at_once=scored,
        )
        self.ended: list[LlamaSequence] = []

    def submit(
        self,
        prompt: list[int],
        limit: int = 1000,
        generated: tuple[int, ...] = (),
        sampling: Sampling = GREEDY,
        scores: bool = False,
    ) -> LlamaSequence:
        request = GenerationRequest(
            "r", Prompt(tuple(prompt)), sampling, generated=generated, prompt_logprobs=0 if scores else None
        )
        sampler = Sampler(request, np.array([0], dtype=np.int32), 50_000)
        sequence = LlamaSequence(request, ChunkStream(lambda: None), text_output(), limit, sampler)
        if sequence.prompt_logprobs is not None:
            sequence.prompt_logprobs.append(SCORE)
        self.scheduler.submit(sequence)
        return sequence

    def step(self, budget: int = 512) -> dict[LlamaSequence, int]:
        """One step: every sequence whose prompt is complete draws the token 7."""
        work = self.scheduler.schedule(budget)
        assert sum(w.count for w in work) <= self.kv.free_cells
        drawing = [w.sequence for w in work if w.completes]
        for item in work:
            if item.scores:
                count = min(item.outputs, item.sequence.unscored)
                item.sequence.prompt_logprobs = [*(item.sequence.prompt_logprobs or ()), *[SCORE] * count]
            self.scheduler.commit(item)
        for sequence in drawing:
            if not sequence.to_generate or sequence.extend(7, None).finish_reason:
                self.scheduler.remove(sequence)
                self.ended.append(sequence)
        return {w.sequence: w.count for w in work}

    def run(self, steps: int = 10_000) -> None:
        for _ in range(steps):
            if not self.scheduler.has_work:
                return
            assert self.step(), "a step did nothing although there is work"
        raise AssertionError("it never ends")


def test_answers_that_were_begun_elsewhere_go_before_those_that_have_not_begun() -> None:
    bench = Bench(running=1)
    first, second = bench.submit([1], limit=2), bench.submit([2], limit=2)
    third, fourth = (bench.submit([n], limit=9, generated=(7,) * 7) for n in (3, 4))
    bench.run()
    assert bench.ended == [third, fourth, first, second]


def test_decode_goes_first_and_prefill_keeps_to_the_budget() -> None:
    bench = Bench()
    first = bench.submit([1, 2, 3])
    bench.step()
    second = bench.submit(list(range(100, 400)))
    assert bench.step(budget=50) == {first: 1, second: 50}
    assert bench.step(budget=50) == {first: 1, second: 50}


def test_prompts_that_are_scored_share_the_logits_of_a_step_and_no_prefix() -> None:
    bench = Bench(cells=120, scored=10)
    plain = bench.submit([*range(100, 140)], limit=20)
    bench.step()
    scored = [bench.submit([*range(100, 130)], limit=0, scores=True) for _ in range(2)]
    pieces = [bench.step() for _ in range(3)]
    assert pieces == [{plain: 1, scored[0]: 10}] * 3
    assert bench.step() == {plain: 1, scored[1]: 10}
    assert bench.scheduler.relieve()  # the youngest is preempted, and what was scored is not scored again
    assert bench.step() == {plain: 1, scored[1]: 10}
    assert scored[1].scored_up_to == 10
    assert bench.step() == {plain: 1, scored[1]: 10}
    assert scored[1].scored_up_to == 20
    bench.run()
    assert set(bench.ended) == {plain, *scored}
    assert all(len(each.prompt_logprobs or ()) == 30 for each in scored)


def test_a_batch_is_never_larger_than_the_context_takes() -> None:
    bench = Bench(batch=16)
    for i in range(4):
        bench.submit([i * 1000 + j for j in range(40)])
    for _ in range(30):
        assert sum(bench.step(budget=1000).values()) <= 16


def test_oldest_prompts_are_admitted_first() -> None:
    bench = Bench(running=2)
    sequences = [bench.submit([i, i + 1]) for i in range(10, 40, 10)]
    assert set(bench.step()) == set(sequences[:2])


@pytest.mark.parametrize("per_slot", [0, 300])
def test_a_prompt_that_runs_alone_is_computed_in_the_same_pieces_cached_or_not(per_slot: int) -> None:
    bench = Bench(per_slot=per_slot)

    def pieces(tokens: list[int], budget: int = 70) -> list[int]:
        sequence = bench.submit(tokens, limit=1)
        found = []
        while bench.scheduler.has_work:
            found.append(bench.step(budget)[sequence])
        assert sum(found) + (sequence.cached or 0) == len(tokens)
        return found

    first = list(range(200))
    assert pieces(first) == [64, 64, 64, 8]
    assert pieces(first) == [8]
    assert pieces([*first[:140], 999], budget=1000) == [13]
    assert pieces([*range(500, 700)], budget=1000) == [192, 8]
    assert pieces([*range(500, 692)]) == [64]
    assert pieces(first) == [64, 8]  # a prompt that shared much of it has taken its place


@pytest.mark.parametrize(
    ("deterministic", "sampling", "computed"),
    [
        (True, GREEDY, 8),
        (True, Sampling(seed=1), 8),
        (True, Sampling(), 1),
        (False, GREEDY, 1),
        (False, Sampling(seed=1), 1),
    ],
)
def test_who_does_not_ask_for_the_same_answer_takes_all_that_is_cached(
    deterministic: bool, sampling: Sampling, computed: int
) -> None:
    bench = Bench(deterministic=deterministic)
    for count in (200, computed):
        bench.submit(list(range(200)), limit=1, sampling=sampling)
        steps: list[int] = []
        while bench.scheduler.has_work:
            steps += bench.step().values()
        assert sum(steps) == count


def test_further_answers_begin_after_their_prompt() -> None:
    bench = Bench()
    first = bench.submit(list(range(100)))
    twins = [replace_request(bench.submit([0]), first) for _ in range(2)]
    assert bench.step(budget=70) == {first: 64}
    assert bench.step(budget=70) == {first: 36}
    assert bench.step(budget=70) == {first: 1} | dict.fromkeys(twins, 1)


def replace_request(sequence: LlamaSequence, other: LlamaSequence) -> LlamaSequence:
    """``sequence`` as another answer to the prompt of ``other``."""
    sequence.request, sequence.tokens = other.request, [*other.request.prompt.token_ids]
    return sequence


def test_a_slow_model_goes_in_smaller_steps() -> None:
    bench = Bench(piece=16)
    first = bench.submit(list(range(40)))
    assert [bench.step(budget=100) for _ in range(3)] == [{first: 16}, {first: 16}, {first: 8}]


def test_where_one_runs_at_a_time_those_that_wait_change_nothing() -> None:
    bench = Bench(running=1)
    first, second = bench.submit(list(range(100)), limit=1), bench.submit(list(range(500, 600)), limit=1)
    assert [bench.step(budget=70) for _ in range(4)] == [{first: 64}, {first: 36}, {second: 64}, {second: 36}]


def test_a_prompt_that_runs_alone_has_an_empty_pool() -> None:
    bench = Bench(running=2)
    first = bench.submit(list(range(100)), limit=1)
    bench.run()
    assert bench.memory.cleared == 1
    going_on = bench.submit([*range(100), 7], limit=20)  # lies where it must
    bench.step()
    assert (going_on.cached, bench.memory.cleared) == (64, 1)
    other = bench.submit(list(range(1000, 1100)), limit=1)
    bench.run()
    assert bench.kv.cells - bench.kv.free_cells == 120 + 100
    third = bench.submit([*range(1000, 1100), 5], limit=1)
    bench.run()
    assert (first.cached, other.cached, third.cached, bench.memory.cleared) == (0, 0, 64, 2)
    assert bench.kv.cells - bench.kv.free_cells == 101
    beside = bench.submit([5000], limit=9)
    bench.step()
    fourth = bench.submit([*range(100), 7, 7, 7], limit=1)  # comes back from the stash, beside another
    bench.run()
    assert (beside.cached, fourth.cached) == (0, 102)


def test_the_last_token_is_never_reused() -> None:
    bench = Bench()
    bench.submit([1])
    for _ in range(2):
        again = bench.submit(list(range(50)), limit=1)
        bench.step()
    assert again.cached == 49


def test_a_running_prompt_is_reused() -> None:
    bench = Bench()
    bench.submit(list(range(60)))
    bench.step()
    second = bench.submit([*range(60), 1234])
    assert bench.step()[second] == 1
    assert second.cached == 60


def test_equal_prompts_that_arrive_together_are_prefilled_once() -> None:
    bench = Bench()
    shared = list(range(200))
    sequences = [bench.submit([*shared, 1000 + i]) for i in range(5)]
    computed = 0
    while any(s.is_prefilling or s.slot < 0 for s in sequences):
        computed += sum(bench.step(budget=64).values())
    assert computed < 200 + 5 * WORTH_WAITING_FOR
    assert all(s.cached is not None and s.cached > 200 - WORTH_WAITING_FOR for s in sequences[1:])


def test_whoever_waits_for_a_prefix_does_not_block_others() -> None:
    bench = Bench()
    shared = list(range(200))
    first, second, other = bench.submit([*shared, 1]), bench.submit([*shared, 2]), bench.submit([5000, 5001])
    assert bench.step(budget=64) == {first: 64}
    work = bench.step(budget=200)
    assert second not in work
    assert other in work


def test_waiting_ends_when_the_awaited_one_is_aborted() -> None:
    bench = Bench()
    shared = list(range(200))
    first, second = bench.submit([*shared, 1]), bench.submit([*shared, 2])
    bench.step(budget=64)
    bench.scheduler.remove(first)
    bench.step(budget=64)
    assert second.cached == 64  # what the first one had computed is not lost
    assert second.computed == 128


def test_without_caching_nothing_is_shared() -> None:
    bench = Bench(cache=False)
    bench.submit(list(range(50)), limit=1)
    bench.run()
    again = bench.submit(list(range(50)))
    assert bench.step() == {again: 50}
    assert bench.memory.copies == []


def test_cached_prefixes_are_evicted_least_recently_used_first() -> None:
    bench = Bench(cells=240)
    for start in (1000, 2000):
        bench.submit([start + i for i in range(80)], limit=1)
        bench.run()
    bench.submit([1000 + i for i in range(80)], limit=1)  # the older one is used again
    bench.run()
    bench.submit([3000 + i for i in range(120)], limit=1)
    bench.run()
    kept = bench.submit([1000 + i for i in range(80)], limit=1)
    bench.run()
    gone = bench.submit([2000 + i for i in range(80)], limit=1)
    bench.run()
    assert (kept.cached, gone.cached) == (64, 0)


def test_a_longer_conversation_replaces_its_own_beginning() -> None:
    bench = Bench(slots=10)
    prompt = list(range(20))
    for turn in range(30):
        bench.submit(prompt, limit=1)
        bench.run()
        prompt = [*prompt, 100 + turn]
    assert bench.kv.cells - bench.kv.free_cells == len(prompt) - 1


def test_more_demand_than_cells_completes_all() -> None:
    bench = Bench(cells=512, slots=32)
    sequences = [bench.submit([1000 * i + j for j in range(50)], limit=150) for i in range(16)]
    bench.run()
    assert sorted(map(id, bench.ended)) == sorted(map(id, sequences))
    assert bench.scheduler.preemptions > 0


def test_the_youngest_is_preempted_and_the_oldest_is_not() -> None:
    bench = Bench(cells=300)
    old, young = bench.submit(list(range(40)), limit=200), bench.submit(list(range(500, 530)), limit=200)
    for _ in range(300):
        if bench.scheduler.preemptions:
            break
        bench.step()
    assert young in bench.scheduler.waiting
    assert old in bench.scheduler.running
    bench.run()
    assert bench.ended == [old, young]
    assert young.cached == 0  # what it computes again later was never found in the cache


def test_a_prompt_is_admitted_only_with_room_to_grow() -> None:
    bench = Bench(cells=100)
    old, young = bench.submit(list(range(40)), limit=60), bench.submit(list(range(500, 530)), limit=60)
    bench.step()
    assert bench.scheduler.running == [old]
    bench.run()
    assert bench.ended == [old, young]
    assert bench.scheduler.preemptions == 0


def test_aborted_sequences_leave_wherever_they_are() -> None:
    bench = Bench(running=1)
    running, waiting = bench.submit([1, 2, 3]), bench.submit([4, 5, 6])
    bench.step()
    bench.scheduler.remove(waiting)
    bench.scheduler.remove(running)
    assert not bench.scheduler.has_work
    assert bench.scheduler.cells_in_use == 0


def test_relieve_preempts_but_keeps_the_last_one() -> None:
    bench = Bench()
    first, second = bench.submit([1, 2, 3]), bench.submit([4, 5, 6])
    bench.step()
    assert bench.scheduler.relieve()
    assert bench.scheduler.running == [first]
    assert second in bench.scheduler.waiting
    assert not bench.scheduler.relieve()


@pytest.mark.parametrize("per_slot", [0, 112])
@pytest.mark.parametrize("seed", range(20))
def test_random_traffic_never_stalls_or_leaks(seed: int, per_slot: int) -> None:
    """Arrivals, aborts and shared prefixes at random, in a cache that is too small (or split)."""
    rng = random.Random(seed)
    bench = Bench(
        cells=rng.choice([150, 300, 600]), running=rng.choice([2, 5, 12]), slots=16, per_slot=per_slot
    )
    bases = [[base * 1000 + i for i in range(80)] for base in range(3)]
    live: list[LlamaSequence] = []
    for _ in range(300):
        if rng.random() < 0.3 and len(live) < 40:
            prompt = [*rng.choice(bases)[: rng.randint(1, 80)], rng.randint(9000, 9999)]
            live.append(bench.submit(prompt, limit=rng.randint(1, 30)))
        if live and rng.random() < 0.1:
            bench.scheduler.remove(live.pop(rng.randrange(len(live))))
        if bench.scheduler.has_work:
            assert bench.step(budget=rng.choice([1, 16, 64]))
    bench.run()
    assert bench.scheduler.cells_in_use == 0
    bench.prefixes.clear()
    assert bench.kv.free_cells == bench.kv.cells


def test_many_sequences_may_keep_fewer_idle_cells_than_one() -> None:
    bench = Bench()
    for start in range(0, 5000, 1000):
        bench.submit([start + i for i in range(40)], limit=1)
    bench.run()
    assert bench.kv.cells - bench.kv.free_cells == 200
    bench.prefixes._idle_cell_budget = 200
    for start in range(5000, 9000, 1000):
        bench.submit([start, start + 1])
    bench.step()
    idle = bench.kv.cells - bench.kv.free_cells - bench.scheduler.cells_in_use
    assert idle <= 200 // 4


def test_a_split_cache_goes_on_in_place_and_copies_to_others() -> None:
    bench = Bench(running=4, per_slot=300)
    first = bench.submit(list(range(100)), limit=1)
    bench.run()
    assert first.slot < 0
    going_on = bench.submit([*range(100), 7, 8])
    bench.step()
    assert (going_on.cached, bench.memory.copies) == (64, [])
    other = bench.submit([*range(100), 500])
    bench.step()
    assert other.cached == 100
    assert bench.memory.copies == [(going_on.slot, other.slot, 100)]


def test_work_comes_in_the_order_of_slots() -> None:
    bench = Bench(running=4, per_slot=300)
    for start in (1000, 2000, 3000):
        bench.submit([start, start + 1])
    work = bench.scheduler.schedule(512)
    assert [w.sequence.slot for w in work] == sorted(w.sequence.slot for w in work)
