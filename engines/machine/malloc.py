"""malloc's freed memory, given back to the system. glibc only; elsewhere these do nothing."""

from __future__ import annotations

import ctypes
import sys

# mallopt(3)'s parameters.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# Model buffers are above it, the arrays of a decode step below.
_MOST_KEPT = 4 * 1024 * 1024


def keep_little_memory() -> None:
    """Bound what each of malloc's arenas keeps of freed memory, for this process and from now on.

    glibc raises its thresholds with the largest block it has seen freed, to 32 and 64 MiB. A freed KV cache
    then stays at the top of the arena of a thread, out of `give_memory_back`'s reach: each load and unload
    by another thread seems to leak (measured: 142 to 175 MiB over 30 of SmolLM2; with this 118 to 121).
    """
    for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
        _call("mallopt", parameter, _MOST_KEPT)


def give_memory_back() -> None:
    """Return what malloc keeps of freed memory. Blocks for milliseconds.

    glibc has an arena for each thread that allocated; what a thread that has ended freed there is neither
    used again soon nor returned, so a server that loads and unloads would seem to leak.
    """
    _call("malloc_trim", 0)


def _call(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        try:
            getattr(ctypes.CDLL(None), function)(*arguments)
        except AttributeError:  # another libc
            return
