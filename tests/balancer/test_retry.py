"""The retry budget and the backoff."""

from __future__ import annotations

import random

import pytest

from balancer.retry import RetryBudget, backoff


class Clock:
    def __init__(self) -> None:
        self.now = 500.0

    def __call__(self) -> float:
        return self.now


def granted(budget: RetryBudget, wanted: int) -> int:
    return sum(budget.take() for _ in range(wanted))


@pytest.mark.parametrize(("calls", "retries"), [(0, 10), (50, 20), (1000, 210)])
def test_retries_are_a_fifth_of_the_calls_and_ten_more(calls: int, retries: int) -> None:
    budget = RetryBudget(Clock())
    for _ in range(calls):
        budget.note_call()
    assert granted(budget, 1000) == retries


def test_what_is_ten_seconds_old_does_not_count() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    for _ in range(100):
        budget.note_call()
    assert granted(budget, 100) == 30
    clock.now += 9
    assert granted(budget, 100) == 0
    clock.now += 2
    assert granted(budget, 100) == 10


def test_an_outage_multiplies_no_load() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    retries = 0
    for _ in range(6000):  # a minute of 100 calls a second, each of which wants two retries
        clock.now += 0.01
        budget.note_call()
        retries += granted(budget, 2)
    assert 0.2 * 6000 <= retries <= 0.25 * 6000 + 20


def test_backoff_is_anything_up_to_a_bound_that_doubles() -> None:
    rng = random.Random(0)
    for attempt, bound in enumerate((0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0)):
        waits = [backoff(attempt, rng) for _ in range(500)]
        assert 0 <= min(waits) < 0.05 * bound
        assert 0.95 * bound < max(waits) <= bound
