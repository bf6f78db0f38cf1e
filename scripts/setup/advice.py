"""What to do about the failures that people meet, told from the output of pip and the compiler."""

from __future__ import annotations

import signal

UNREACHABLE = ("Retrying (", "Read timed out", "Could not fetch URL", "ConnectionResetError")
NO_DISTRIBUTION = "No matching distribution found"

_DISK = """\
The disk is full. Free some room (`pip cache purge` empties pip's cache), or let temporary files go elsewhere:
set TMPDIR to a folder on a disk with room. Then run this again."""
_NETWORK = """\
The package index did not answer. Check the network, and HTTPS_PROXY or PIP_INDEX_URL if you need them, then
run this again: it goes on from where it was."""
_NO_BUILD = """\
A package has no build for this platform or this Python. Try another Python (make serve PYTHON=python3.12),
or leave out the engine that needs it."""
_MEMORY = """\
The system ended it, most likely because memory ran out. Close other programs, or compile with fewer jobs:
set CMAKE_BUILD_PARALLEL_LEVEL=1. Then run this again."""


def is_unreachable(output: str) -> bool:
    """Whether pip's ``output`` shows that the package index could not be reached."""
    return any(sign in output for sign in UNREACHABLE)


def advise(output: str, status: int) -> list[str]:
    """Advice on a command that ended with ``status`` after printing ``output``; empty if unknown."""
    advice = []
    if "No space left on device" in output:
        advice.append(_DISK)
    if is_unreachable(output):
        advice.append(_NETWORK)
    elif NO_DISTRIBUTION in output:
        advice.append(_NO_BUILD)
    # A compiler's child that was killed shows in the output; pip itself, in its status.
    if status == -signal.SIGKILL or "Killed signal terminated program" in output:
        advice.append(_MEMORY)
    return advice
