"""llama.cpp's own messages, sent to Python's logging, and kept while a load runs."""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from typing import Any

import llama_cpp.llama_cpp as lib

logger = logging.getLogger("llama.cpp")

_ERROR = 4  # enum ggml_log_level
_recent_errors: deque[str] = deque(maxlen=8)


def _receive(level: int, text: bytes, _user_data: Any) -> None:
    # Called from native code, on any thread: it must never raise.
    line = text.decode("utf-8", "replace").rstrip()
    if not line:
        return
    if level == _ERROR:
        _recent_errors.append(line)
    # A load prints hundreds of lines: they are for debugging, whatever llama.cpp calls them.
    logger.log(logging.WARNING if level == _ERROR else logging.DEBUG, line)


callback = lib.llama_log_callback(_receive)  # ctypes keeps no reference: this module does


def install() -> None:
    """Route native messages to the ``llama.cpp`` logger. Idempotent."""
    lib.llama_log_set(callback, ctypes.c_void_p(0))


def forget_errors() -> None:
    _recent_errors.clear()


def recent_errors() -> str:
    """The errors that llama.cpp logged since `forget_errors`, in one line."""
    return "; ".join(_recent_errors)
