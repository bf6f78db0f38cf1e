"""Callbacks for progress. Both may be called from any thread."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float], None]
"""Gets the fraction that is done, 0..1."""

PhaseProgress = Callable[[str, float], None]
"""Gets the name of the phase that is under way, and the fraction of it that is done, 0..1."""
