"""How long is "1h30m"?"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.models.catalog import FOREVER, parse_duration


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (300, 300),
        (1.5, 1.5),
        (-1, FOREVER),
        (-0.5, FOREVER),
        ("0", 0),
        ("300", 300),
        ("-1", FOREVER),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("+10s", 10),
        ("-10m", FOREVER),
        ("1h2m3s4ms", 3723.004),
        ("250ms", 0.25),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("10ns", 1e-8),
        (" 5m ", 300),
    ],
)
def test_durations(value: str | float, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    ["", "m", "5 m", "5 minutes", "5d", "1h30", "30m1", "--5m", "1e3", "inf", "\u0665m", "5m" * 100],
)
def test_what_is_no_duration(value: str) -> None:
    with pytest.raises(ValueError, match=r'is no duration: give seconds, or text like "5m"'):
        parse_duration(value)


@pytest.mark.parametrize("value", [math.inf, math.nan, 10**400, True, None, [], b"5m"])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(value)


@given(st.text("0123456789.hmsnuµ-+ ", max_size=12))
def test_text_is_a_duration_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        seconds = parse_duration(text)
        assert seconds == FOREVER or seconds >= 0


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59))
def test_parts_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds
