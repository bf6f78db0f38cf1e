"""From probe results to a verdict."""

from __future__ import annotations

import pytest

from balancer.health.tracker import HealthTracker


@pytest.mark.parametrize(
    ("results", "verdicts"),
    [
        ("---", "++-"),
        ("--+--+--", "++++++++"),
        ("---+-++", "++----+"),
        ("---++--", "++--+++"),
        ("---++---", "++--++" + "+-"),
        ("-----++", "++----+"),
    ],
)
def test_three_failures_in_a_row_and_two_successes_in_a_row(results: str, verdicts: str) -> None:
    tracker = HealthTracker()
    assert tracker.healthy
    assert [tracker.observe(result == "+") for result in results] == [verdict == "+" for verdict in verdicts]
    assert tracker.healthy == (verdicts[-1] == "+")


def test_a_suspicion_counts_as_a_failure_at_once() -> None:
    tracker = HealthTracker()
    tracker.suspect()
    tracker.observe(False)
    assert tracker.healthy
    assert tracker.suspect() is False
    tracker.observe(True)
    tracker.suspect()
    assert tracker.observe(True) is False  # one success again


def test_probes_come_faster_while_a_verdict_is_due() -> None:
    tracker = HealthTracker()
    assert tracker.next_probe(30.0) == 30.0
    tracker.suspect()
    assert tracker.next_probe(30.0) == 1.0
    assert tracker.next_probe(0.2) == 0.2
    tracker.observe(True)
    assert tracker.next_probe(30.0) == 30.0
    for _ in range(3):
        tracker.suspect()
    assert tracker.next_probe(30.0) == 1.0  # watched for its recovery
    tracker.observe(True)
    assert tracker.next_probe(30.0) == 1.0
    tracker.observe(True)
    assert tracker.next_probe(30.0) == 30.0
