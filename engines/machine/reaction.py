"""A reaction to changes: work that is done after a change, and never inside itself."""

from __future__ import annotations

from collections.abc import Callable


class Reaction:
    """``work``, done whenever it is called; a call that comes while it is done has it done once more after.

    Work that changes what it reacts to so comes to rest, where calls in calls would multiply.
    """

    __slots__ = ("_again", "_running", "_work")

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._again = self._running = False

    def __call__(self) -> None:
        self._again = True
        if self._running:
            return
        self._running = True
        try:
            while self._again:
                self._again = False
                self._work()
        finally:
            self._running = False
