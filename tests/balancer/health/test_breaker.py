"""When calls are kept away from a backend, and how it gets them back."""

from __future__ import annotations

import random

import pytest

from balancer.health.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Middle(random.Random):
    """No jitter: the middle of the range."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class Lowest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return a


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock, Middle())


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.on_failure(breaker.on_begin())


def succeed(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.on_success(breaker.on_begin())


def pause(breaker: Breaker, clock: Clock) -> float:
    assert breaker.retry_at is not None
    return breaker.retry_at - clock.now


def test_five_failures_in_a_row_open_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 4)
    assert (breaker.state, breaker.allows, breaker.retry_at) == ("closed", True, None)
    fail(breaker)
    assert (breaker.state, breaker.allows) == ("open", False)
    assert pause(breaker, clock) == 30.0


def test_a_success_ends_the_streak(breaker: Breaker) -> None:
    fail(breaker, 4)
    succeed(breaker)
    fail(breaker, 4)
    assert breaker.state == "closed"


def test_half_of_ten_outcomes_open_it_though_no_streak_does(breaker: Breaker) -> None:
    for _ in range(4):
        succeed(breaker)
        fail(breaker)
    assert breaker.state == "closed"
    succeed(breaker)
    fail(breaker)
    assert breaker.state == "open"


def test_less_than_half_does_not(breaker: Breaker) -> None:
    for _ in range(50):
        succeed(breaker, 2)
        fail(breaker)
    assert breaker.state == "closed"


def test_failures_older_than_thirty_seconds_do_not_count(breaker: Breaker, clock: Clock) -> None:
    for _ in range(4):
        succeed(breaker)
        fail(breaker)
    clock.now += 31
    succeed(breaker)
    fail(breaker)
    assert breaker.state == "closed"


def test_outcomes_without_a_verdict_do_not_count(breaker: Breaker) -> None:
    fail(breaker, 4)
    for _ in range(20):
        breaker.on_ignored(breaker.on_begin())
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"  # nor did they end the streak


def test_after_the_pause_one_probe_at_a_time(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 5)
    clock.now += 29.9
    assert not breaker.allows
    clock.now += 0.2
    assert (breaker.state, breaker.allows) == ("half_open", True)
    probe = breaker.on_begin()
    assert (breaker.state, breaker.allows) == ("half_open", False)
    breaker.on_success(probe)
    assert (breaker.state, breaker.allows) == ("closed", True)


def test_a_probe_without_a_verdict_frees_its_place(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 5)
    clock.now += 31
    breaker.on_ignored(breaker.on_begin())
    assert (breaker.state, breaker.allows) == ("half_open", True)


def test_pauses_double_up_to_five_minutes(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 5)
    pauses = []
    for _ in range(6):
        pauses.append(pause(breaker, clock))
        clock.now += pauses[-1]
        fail(breaker)
    assert pauses == [30, 60, 120, 240, 300, 300]


def test_a_backend_that_only_manages_its_probe_is_asked_ever_less_often(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker, 5)
    clock.now += 30
    succeed(breaker)
    fail(breaker, 5)
    assert pause(breaker, clock) == 60.0


def test_the_pause_starts_over_after_a_long_time_closed(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 5)
    clock.now += 30
    succeed(breaker)
    clock.now += 300
    fail(breaker, 5)
    assert pause(breaker, clock) == 30.0


def test_what_was_before_it_opened_is_forgotten_when_it_closes(clock: Clock) -> None:
    breaker = Breaker(clock, Lowest())
    succeed(breaker, 5)
    fail(breaker, 5)
    clock.now += 27  # less than the 30 s of which outcomes count
    succeed(breaker)
    succeed(breaker, 6)
    fail(breaker, 4)
    assert breaker.state == "closed"  # 4 of 10
    succeed(breaker)
    fail(breaker, 3)
    assert breaker.state == "open"  # 7 of 14


def test_a_call_that_was_sent_though_it_is_open_is_no_probe(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 5)
    call = breaker.on_begin()
    clock.now += 30
    breaker.on_success(call)
    assert (breaker.state, breaker.allows) == ("half_open", True)


def test_pauses_are_jittered_by_a_tenth(clock: Clock) -> None:
    pauses = []
    for seed in range(50):
        breaker = Breaker(clock, random.Random(seed))
        fail(breaker, 5)
        pauses.append(pause(breaker, clock))
    assert 27 <= min(pauses) < 29
    assert 31 < max(pauses) <= 33


def test_calls_from_before_it_opened_have_no_say(breaker: Breaker, clock: Clock) -> None:
    old = [breaker.on_begin() for _ in range(20)]
    fail(breaker, 5)
    breaker.on_success(old.pop())
    assert breaker.state == "open"
    clock.now += 30
    probe = breaker.on_begin()
    breaker.on_ignored(old.pop())
    breaker.on_failure(old.pop())
    breaker.on_success(old.pop())
    assert (breaker.state, breaker.allows) == ("half_open", False)  # still the one probe
    breaker.on_success(probe)
    for call in old:
        breaker.on_failure(call)
    assert breaker.state == "closed"
