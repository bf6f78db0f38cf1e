from __future__ import annotations

import pytest

from app.telemetry.instruments import Histogram, RecentRate, merged
from support.clock import Clock


def test_a_value_counts_for_the_first_bound_that_is_not_below_it() -> None:
    histogram = Histogram((1, 2, 4))
    for value in (0, 1, 1.1, 2, 4, 4.1, 99):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1, 2]
    assert histogram.count == 7
    assert histogram.sum == pytest.approx(111.2)


def test_one_value_may_count_several_times() -> None:
    histogram = Histogram((1, 2))
    histogram.observe(1.5, 4)
    assert (histogram.counts, histogram.sum, histogram.mean) == ([0, 4, 0], 6, 1.5)


def test_without_values_nothing_is_known() -> None:
    histogram = Histogram((1, 2))
    assert (histogram.mean, histogram.quantile(0.5)) == (None, None)


@pytest.mark.parametrize(("q", "value"), [(0.25, 0.5), (0.5, 1.0), (0.75, 3.0), (1.0, 4.0)])
def test_a_quantile_lies_evenly_inside_its_bucket(q: float, value: float) -> None:
    histogram = Histogram((1, 2, 4))
    histogram.observe(0.3, 2)
    histogram.observe(3.0, 2)
    assert histogram.quantile(q) == pytest.approx(value)


def test_what_lies_above_all_bounds_counts_as_the_last() -> None:
    histogram = Histogram((1, 2))
    histogram.observe(50)
    assert histogram.quantile(0.5) == 2


def test_merging_adds_up() -> None:
    first, second = Histogram((1, 2)), Histogram((1, 2))
    first.observe(0.5)
    second.observe(1.5, 3)
    whole = merged((1, 2), [first, second])
    assert (whole.counts, whole.sum) == ([1, 3, 0], 5)
    assert first.counts == [1, 0, 0]


def test_a_young_rate_is_over_its_age() -> None:
    clock = Clock(1000.0)
    rate = RecentRate(clock)
    assert rate.per_second() == 0
    rate.add(10)
    clock.now += 1
    rate.add(20)
    assert rate.per_second() == 15


def test_an_old_rate_is_over_its_window() -> None:
    clock = Clock(1000.0)
    rate = RecentRate(clock, window=10)
    for _ in range(35):
        clock.now += 1
        rate.add(7)
    assert rate.per_second() == 7
    clock.now += 5
    assert rate.per_second() == 3.5
    clock.now += 5
    assert rate.per_second() == 0


def test_a_long_pause_forgets_everything() -> None:
    clock = Clock(1000.0)
    rate = RecentRate(clock, window=10)
    rate.add(100)
    clock.now += 1_000_003
    rate.add(5)
    assert rate.per_second() == 0.5
