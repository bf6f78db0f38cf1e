"""Quantises models on their way into an engine, once, and keeps what it made."""

from engines.models.convert.converter import Converted, ensure_converted

__all__ = ["Converted", "ensure_converted"]
