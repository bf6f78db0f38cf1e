"""How many instances there should be, second by second."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.autoscaler import Autoscaler, Decision

often = settings(derandomize=True, max_examples=200, deadline=None)


def scaler(minimum: int = 1, maximum: int = 10) -> Autoscaler:
    return Autoscaler(target=16, minimum=minimum, maximum=maximum)


def first_decision(scaler: Autoscaler, ongoing: int, instances: int, start: int, end: int) -> Decision | None:
    """Asks every second from ``start`` up to and with ``end``."""
    for now in range(start, end + 1):
        decision = scaler.decide(now, ongoing, instances)
        if decision is not None:
            return decision
    return None


@pytest.mark.parametrize(("ongoing", "desired"), [(0, 1), (1, 1), (16, 1), (17, 2), (64, 4), (1000, 10)])
def test_desired_is_the_ongoing_over_the_target_within_the_limits(ongoing: int, desired: int) -> None:
    assert scaler().desired(ongoing) == desired


def test_up_to_the_desired_once_it_held_for_thirty_seconds() -> None:
    decision = first_decision(scaler(), ongoing=70, instances=2, start=100, end=200)
    assert decision is not None
    assert (decision.instances, decision.at) == (5, 130)
    assert decision.reason == (
        "70 requests ongoing ask for 5 instances of 16 each; more than 2 were needed for 30 s"
    )


def test_a_reason_names_the_maximum_when_it_caps() -> None:
    decision = first_decision(scaler(), ongoing=500, instances=2, start=0, end=30)
    assert decision is not None
    assert decision.instances == 10
    assert "32 instances of 16 each (the maximum is 10)" in decision.reason


def test_an_interruption_starts_the_thirty_seconds_again() -> None:
    auto = scaler()
    assert first_decision(auto, ongoing=64, instances=1, start=0, end=29) is None
    assert auto.decide(30, ongoing=16, instances=1) is None
    assert first_decision(auto, ongoing=64, instances=1, start=31, end=60) is None
    assert auto.decide(61, ongoing=64, instances=1) is not None


def test_instances_that_start_count_so_a_shortage_is_answered_once() -> None:
    auto = scaler()
    assert first_decision(auto, ongoing=64, instances=1, start=0, end=30) is not None
    assert first_decision(auto, ongoing=64, instances=4, start=31, end=1000) is None


def test_down_after_three_hundred_seconds_to_the_most_that_was_needed() -> None:
    auto = scaler()
    assert first_decision(auto, ongoing=0, instances=6, start=0, end=100) is None
    assert first_decision(auto, ongoing=40, instances=6, start=101, end=110) is None
    decision = first_decision(auto, ongoing=0, instances=6, start=111, end=400)
    assert decision == Decision(3, "no more than 3 of 6 instances were needed for 300 s", 300)
    next_one = first_decision(auto, ongoing=0, instances=3, start=301, end=700)
    assert next_one is not None
    assert (next_one.instances, next_one.at) == (1, 601)


def test_a_second_of_full_use_starts_the_three_hundred_again() -> None:
    auto = scaler()
    assert first_decision(auto, ongoing=0, instances=2, start=0, end=299) is None
    assert auto.decide(300, ongoing=17, instances=2) is None
    assert first_decision(auto, ongoing=0, instances=2, start=301, end=600) is None
    assert auto.decide(601, ongoing=0, instances=2) is not None


@pytest.mark.parametrize(("ongoing", "delay"), [(64, 30), (0, 300)])
def test_a_decision_that_is_not_carried_out_is_repeated_after_its_delay(ongoing: int, delay: int) -> None:
    auto = scaler()
    for now in range(2 * delay + 2):
        auto.decide(now, ongoing, instances=2)
    assert [decision.at for decision in auto.history] == [delay, 2 * delay + 1]


def test_instances_that_went_away_meanwhile_were_not_spare() -> None:
    auto = scaler()
    assert first_decision(auto, ongoing=60, instances=6, start=0, end=200) is None  # 4 needed
    decision = first_decision(auto, ongoing=0, instances=3, start=201, end=1000)
    assert decision is not None
    assert (decision.instances, decision.at) == (1, 501)


def test_outside_the_limits_it_acts_at_once() -> None:
    auto = scaler(minimum=2, maximum=4)
    below = auto.decide(0, ongoing=100, instances=0)
    assert below == Decision(2, "the minimum is 2, there are 0", 0)
    above = auto.decide(1, ongoing=100, instances=5)
    assert above == Decision(4, "the maximum is 4, there are 5", 1)
    assert auto.decide(2, ongoing=0, instances=2) is None


def test_limits_can_change() -> None:
    auto = scaler()
    auto.set_limits(3, 5)
    assert (auto.minimum, auto.maximum) == (3, 5)
    decision = auto.decide(0, ongoing=0, instances=1)
    assert decision is not None
    assert decision.instances == 3
    for minimum, maximum in ((0, 5), (6, 5)):
        with pytest.raises(ValueError, match="1 <= minimum <= maximum"):
            auto.set_limits(minimum, maximum)
    with pytest.raises(ValueError, match="above 0"):
        Autoscaler(target=0, minimum=1, maximum=2)


def test_the_last_decisions_are_remembered() -> None:
    auto = scaler(minimum=2)
    for now in range(100):
        auto.decide(now, ongoing=0, instances=1)
    assert [decision.at for decision in auto.history] == list(range(80, 100))


@often
@given(loads=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 120)), max_size=40))
def test_decisions_change_something_and_stay_within_the_limits(loads: list[tuple[int, int]]) -> None:
    auto, instances, now = scaler(minimum=2, maximum=8), 2, 0
    for ongoing, seconds in loads:
        now += seconds
        decision = auto.decide(now, ongoing, instances)
        if decision is not None:
            assert 2 <= decision.instances <= 8
            assert decision.instances != instances
            assert decision.instances >= auto.desired(ongoing)
            instances = decision.instances
