"""Priority of threads against each other."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

NICER = 5


def step_back() -> None:
    """Let the threads that were there before go first, as far as the system can tell threads apart: from now
    on this one, and those that it starts, get what they leave."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICER)
