from __future__ import annotations

from engines.llamacpp.pacing import PrefillPacer


def settled(pacer: PrefillPacer, *, decode: float, cost: float) -> PrefillPacer:
    for _ in range(50):
        pacer.observe(decoded=8, prefilled=0, seconds=decode)
        pacer.observe(decoded=8, prefilled=100, seconds=decode + 100 * cost)
    return pacer


def test_prefill_stretches_a_decode_step_by_what_is_allowed() -> None:
    pacer = settled(PrefillPacer(batch_size=512, stretch=1.0, floor=0.0), decode=0.04, cost=0.001)
    assert 35 <= pacer.budget(decoding=8) <= 45


def test_idle_steps_are_bounded_too() -> None:
    pacer = settled(PrefillPacer(batch_size=512, idle_step=0.1), decode=0.04, cost=0.001)
    assert 90 <= pacer.budget(decoding=0) <= 110


def test_the_batch_and_the_smallest_chunk_are_limits() -> None:
    fast = settled(PrefillPacer(batch_size=256), decode=0.01, cost=1e-6)
    assert fast.budget(decoding=10) == 246
    slow = settled(PrefillPacer(batch_size=256, smallest=16), decode=0.01, cost=1.0)
    assert slow.budget(decoding=10) == 16


def test_before_anything_is_measured_it_is_careful() -> None:
    assert PrefillPacer(batch_size=512, smallest=16).budget(decoding=0) == 64
