"""Durations for keep_alive, in the form of Go's that Ollama's users write."""

from __future__ import annotations

import math
import re

FOREVER = -1.0
"""A keep-alive that never ends."""

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_PART = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(rf"(?P<sign>[-+]?)(?:(?P<number>{_NUMBER})|(?P<parts>(?:{_PART.pattern})+))")
_LONGEST_TEXT = 64


def parse_duration(value: str | int | float) -> float:
    """Seconds, or `FOREVER` (-1) for anything negative.

    ``value`` is a number of seconds, or text: a number of seconds too, or a Go duration such as "5m" or
    "1h30m". Raises `ValueError`, saying what would be right.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(_advice(value))
    seconds = _parse(value) if isinstance(value, str) else _to_float(value)
    if not math.isfinite(seconds):
        raise ValueError(_advice(value))
    return seconds if seconds >= 0 else FOREVER


def _parse(text: str) -> float:
    match = _DURATION.fullmatch(text.strip()) if len(text) <= _LONGEST_TEXT else None
    if match is None:
        raise ValueError(_advice(text))
    if match["number"] is not None:
        seconds = float(match["number"])
    else:
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(match["parts"]))
    return -seconds if match["sign"] == "-" else seconds


def _to_float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _advice(value: object) -> str:
    shown = repr(value)
    shown = shown if len(shown) <= _LONGEST_TEXT else shown[:_LONGEST_TEXT] + "…"
    return f'{shown} is no duration: give seconds, or text like "5m" or "1h30m"; -1 is forever'
