"""Counts of the last seconds, and the wait that recent completions promise."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.rates import CompletionRate, CompletionRates, RecentCount

often = settings(derandomize=True, max_examples=100, deadline=None)


@often
@given(gaps=st.lists(st.floats(0, 3), max_size=60))
def test_a_recent_count_is_right_to_within_a_slice(gaps: list[float]) -> None:
    recent, times, now = RecentCount(10.0), list[float](), 100.0
    for gap in gaps:
        now += gap
        recent.add(now)
        times.append(now)
        assert sum(t > now - 9.5 for t in times) <= recent.total(now) <= sum(t > now - 10 for t in times)
    assert recent.total(now + 11) == 0


def test_a_recent_count_does_not_grow_with_the_events() -> None:
    recent = RecentCount(10.0)
    for i in range(10_000):
        recent.add(i / 100)
    assert len(recent._counts) <= RecentCount.SLICES


def test_nothing_is_known_without_a_call() -> None:
    assert CompletionRate().wait(1, 100.0) is None


def test_the_wait_is_the_position_over_the_rate() -> None:
    rate = CompletionRate()
    for second in range(100, 130, 2):
        rate.released(began=second - 10.0, now=second)
    assert rate.wait(1, 128.0) == pytest.approx(38 / 15)
    assert rate.wait(5, 128.0) == pytest.approx(5 * 38 / 15)


def test_in_the_long_run_the_rate_is_exact() -> None:
    rate = CompletionRate()
    for i in range(1000):
        rate.released(began=i * 0.5 - 20, now=i * 0.5)  # 40 at once, each takes 20 s
    assert rate.wait(4, 499.5) == pytest.approx(2.0, rel=0.02)


def test_a_batch_that_ends_at_once_promises_no_more_than_it_kept() -> None:
    rate = CompletionRate()
    for i in range(8):
        rate.released(began=90.0, now=100.0 + i / 1000)
    assert rate.wait(8, 100.01) == pytest.approx(10.0, rel=0.01)


def test_a_quiet_hour_before_is_no_part_of_the_rate() -> None:
    rate = CompletionRate()
    rate.released(began=0.0, now=1.0)
    for i in range(4):
        rate.released(began=3600.0, now=3604.0 + i / 1000)
    assert rate.wait(1, 3604.01) == pytest.approx(1.0, rel=0.01)


def test_one_long_call_is_a_sample_and_one_that_failed_at_once_promises_little() -> None:
    long, failed = CompletionRate(), CompletionRate()
    long.released(began=0.0, now=120.0)
    assert long.wait(1, 120.0) == 120.0
    failed.released(began=99.999, now=100.0)
    assert failed.wait(50, 100.0) == 50.0


def test_a_stall_makes_the_wait_longer_and_then_unknown() -> None:
    rate = CompletionRate()
    for i in range(10):
        rate.released(began=i, now=i + 1.0)
    waits = [rate.wait(1, now) for now in (10.0, 30.0, 60.0, 80.0)]
    assert waits[:2] == [1.0, 3.0]
    assert waits[2] is not None
    assert waits[2] > 3.0
    assert waits[3] is None


def test_samples_are_bounded() -> None:
    rate, rng = CompletionRate(), random.Random(0)
    for i in range(5000):
        rate.released(began=i / 100 - rng.random(), now=i / 100)
    assert len(rate._calls) <= CompletionRate.SAMPLES
    assert rate.wait(100, 49.99) == pytest.approx(100 / 64)  # at least a second is looked at


def test_there_is_an_end_to_the_models_that_are_remembered() -> None:
    rates = CompletionRates()
    for number in range(rates.MOST + 1):
        rates.released(f"m{number}", 0.0, 1.0)
    assert rates.wait("m0", 1, 1.0) is None
    assert rates.wait("m1", 1, 1.0) == 1.0
    assert len(rates._rates) == rates.MOST
