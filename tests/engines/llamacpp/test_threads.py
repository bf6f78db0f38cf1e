from __future__ import annotations

import pytest

from engines.llamacpp.threads import candidates, fastest


class Clock:
    """Time passes only while a step runs; ``seconds`` of each thread count."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.runs: list[int] = []

    def run(self, count: int) -> None:
        self.runs.append(count)
        self.now += self.seconds[count]

    def __call__(self) -> float:
        return self.now


def test_the_fastest_count_wins() -> None:
    clock = Clock({1: 0.010, 2: 0.006, 4: 0.012})
    best, medians = fastest([1, 2, 4], clock.run, clock)
    assert best == 2
    assert medians == pytest.approx({1: 0.010, 2: 0.006, 4: 0.012})


def test_more_threads_must_be_worth_it() -> None:
    clock = Clock({1: 0.0100, 2: 0.0098})
    assert fastest([1, 2], clock.run, clock)[0] == 1


def test_a_hopeless_count_is_given_up_after_two_steps() -> None:
    clock = Clock({1: 0.01, 2: 3.0})
    assert fastest([1, 2], clock.run, clock)[0] == 1
    assert clock.runs.count(2) == 2


def test_candidates() -> None:
    assert candidates(1) == [1]
    assert candidates(2) == [1, 2]
    assert candidates(16) == [8, 15, 16]
