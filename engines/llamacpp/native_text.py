"""Texts from the native API: two ways in which it says how long they are."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any


def read_string(read: Callable[[Any, int], int]) -> str:
    """Text from an API like snprintf, which returns the length that it would have needed."""
    size = 256
    while True:
        buffer = ctypes.create_string_buffer(size)
        needed = int(read(buffer, size))
        if needed < size:
            return buffer.raw[: max(needed, 0)].decode("utf-8", "replace")
        size = needed + 1


def read_bytes(read: Callable[[Any, int], int], first_guess: int) -> bytes:
    """Bytes from an API that returns minus the size that it would have needed."""
    size = first_guess
    while True:
        buffer = ctypes.create_string_buffer(size)
        n = int(read(buffer, size))
        if n >= 0:
            return buffer.raw[:n]
        size = -n
