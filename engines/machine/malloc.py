"""Memory back to the system after an engine was closed."""

from __future__ import annotations

import ctypes
import sys


def give_memory_back() -> None:
    """Return what malloc keeps of freed memory. Blocks for milliseconds.

    glibc has an arena for each thread that allocated; what a thread that has ended freed there is neither
    used again soon nor returned, so a server that loads and unloads would seem to leak.
    """
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except AttributeError:  # another libc
            return
