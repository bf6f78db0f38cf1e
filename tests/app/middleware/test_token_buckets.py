from __future__ import annotations

import pytest

from app.middleware.token_buckets import MAX_CLIENTS, TokenBuckets
from support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


def test_a_bucket_never_holds_more_than_its_capacity(clock: Clock) -> None:
    buckets = TokenBuckets(60, clock)
    buckets.take("a")
    clock.now += 50  # not so long that the bucket is forgotten
    assert [buckets.take("a")[0] for _ in range(61)] == [True] * 60 + [False]


def test_idle_clients_are_forgotten_and_busy_ones_are_not(clock: Clock) -> None:
    buckets = TokenBuckets(60, clock)
    for number in range(1000):
        buckets.take(str(number))
    clock.now += 59.5
    while buckets.take("busy")[0]:
        pass
    clock.now += 0.5
    assert buckets.take("busy") == (False, 0.5)
    assert len(buckets) == 1


def test_a_flood_of_clients_does_not_fill_the_memory(clock: Clock) -> None:
    buckets = TokenBuckets(1, clock)
    buckets.take("busy")
    for number in range(MAX_CLIENTS + 100):
        buckets.take(str(number))
        if number % 1000 == 0:
            assert buckets.take("busy")[0] is False  # not forgotten, as it keeps coming
    assert len(buckets) == MAX_CLIENTS


def test_a_look_takes_nothing(clock: Clock) -> None:
    buckets = TokenBuckets(2, clock)
    assert buckets.left("a") == 2
    buckets.take("a")
    assert buckets.left("a") == buckets.left("a") == 1
    assert len(buckets) == 1
