from __future__ import annotations

from engines.llamacpp.pacing import FIRST_CHUNK, LARGE_CHUNK, REFRESH, LlamaPacer


def settled(
    pacer: LlamaPacer, *, decode: float, small: float, large: float | None = None, steps: int = 50
) -> LlamaPacer:
    """A pacer that has seen decode steps, and chunks of both sizes at these costs a token."""
    for _ in range(steps):
        pacer.observe(decoded=8, prefilled=0, seconds=decode)
        pacer.observe(decoded=8, prefilled=20, seconds=decode + 20 * small)
        pacer.observe(decoded=8, prefilled=100, seconds=decode + 100 * (small if large is None else large))
    return pacer


def test_prefill_stretches_a_decode_step_by_what_is_allowed() -> None:
    pacer = settled(LlamaPacer(batch_size=512, stretch=1.0, floor=0.0), decode=0.1, small=0.001)
    assert 95 <= pacer.budget(decoding=8) <= 105


def test_idle_steps_are_bounded_too() -> None:
    pacer = settled(LlamaPacer(batch_size=512, idle_step=0.1), decode=0.04, small=0.001)
    assert 95 <= pacer.budget(decoding=0) <= 105


def test_large_chunks_are_taken_if_they_are_cheap_enough() -> None:
    pacer = LlamaPacer(batch_size=512, stretch=1.0, floor=0.0)
    settled(pacer, decode=0.05, small=0.003, large=0.001)
    assert LARGE_CHUNK <= pacer.budget(decoding=8) <= 52
    settled(pacer, decode=0.05, small=0.003, large=0.002)
    assert 15 <= pacer.budget(decoding=8) <= 17  # what a small chunk may have


def test_a_prompt_that_becomes_dear_is_cut_smaller_within_a_few_steps() -> None:
    pacer = LlamaPacer(batch_size=512, stretch=1.0, floor=0.0)
    settled(pacer, decode=0.05, small=0.002, large=0.004)
    for _ in range(8):
        pacer.observe(decoded=8, prefilled=10, seconds=0.10 + 10 * 0.01)
        pacer.observe(decoded=8, prefilled=0, seconds=0.10)
    assert 9 <= pacer.budget(decoding=8) <= 12


def test_the_batch_and_the_smallest_chunk_are_limits() -> None:
    fast = settled(LlamaPacer(batch_size=256), decode=0.01, small=1e-6)
    assert fast.budget(decoding=10) == 246
    slow = settled(LlamaPacer(batch_size=256, smallest=4), decode=0.01, small=1.0)
    assert slow.budget(decoding=10) == 4


def test_few_streams_give_way_to_many_prompts() -> None:
    pacer = settled(LlamaPacer(batch_size=512, stretch=1.0, floor=0.0), decode=0.1, small=0.001)
    assert 95 <= pacer.budget(decoding=4, prefilling=1) <= 105
    assert 190 <= pacer.budget(decoding=4, prefilling=8) <= 210
    assert 380 <= pacer.budget(decoding=1, prefilling=30) <= 420


def test_decoding_is_measured_alone_now_and_then() -> None:
    pacer = settled(LlamaPacer(batch_size=512), decode=0.05, small=0.002)
    budgets = []
    for _ in range(2 * REFRESH):
        budget = pacer.budget(decoding=8)
        budgets.append(budget)
        pacer.observe(decoded=8, prefilled=budget, seconds=0.05 + budget * 0.002)
    assert 1 <= budgets.count(0) <= 2
    assert pacer.budget(decoding=0) > 0


def test_before_anything_is_measured_it_is_careful() -> None:
    """While streams decode; with nobody to hold up, a chat's whole first prompt is worth a try."""
    assert LlamaPacer(batch_size=512).budget(decoding=1) == LARGE_CHUNK
    assert LlamaPacer(batch_size=512).budget(decoding=0) == FIRST_CHUNK
