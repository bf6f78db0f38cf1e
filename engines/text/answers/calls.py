"""The calls of one answer, as they are passed on."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from engines.base import ToolCallDelta
from engines.text.answers.functions import Functions
from engines.text.answers.marks import as_written

# A call that no answer is long enough for.
WHOLE = 1 << 62


class CallDeltas:
    """Deltas of calls. A call is announced with the first of its arguments, or at its end.

    ``hold``: with as many characters of them, so that a call that breaks before is none.
    """

    def __init__(self, functions: Functions, hold: int = 0) -> None:
        self.functions = functions
        self.deltas: list[ToolCallDelta] = []
        self.count = 0  # announced
        self.is_announced = False  # the current one
        self._hold = hold
        self._held: list[str] = []
        self._size = 0
        self._name: str | None = None
        self._id: str | None = None

    def open(self, name: str, id: str | None = None) -> bool:
        """Begin a call; whether there is such a function."""
        self._name, self._id = self.functions.find(name), id
        self._held, self._size, self.is_announced = [], 0, False
        return self._name is not None

    @property
    def name(self) -> str:
        """The function that is called."""
        return self._name or ""

    def write(self, arguments: str) -> None:
        """Pass on a part of the arguments."""
        arguments = as_written(arguments)
        if self.is_announced:
            self.deltas.append(ToolCallDelta(self.count - 1, arguments=arguments))
            return
        self._held.append(arguments)
        self._size += len(arguments)
        if self._size > self._hold:
            self._announce()

    def close(self) -> None:
        """The call is whole."""
        if not self.is_announced:
            self._announce()
        self.is_announced = False

    def drop(self) -> None:
        """The call is none, or was cut off: what was passed on of it stays."""
        self.is_announced = False

    def take(self) -> tuple[ToolCallDelta, ...]:
        """What came since the last time, pieces of one call joined."""
        if len(self.deltas) < 2:
            taken = tuple(self.deltas)
        else:
            groups = [list(group) for _, group in groupby(self.deltas, key=lambda delta: delta.index)]
            taken = tuple(
                replace(group[0], arguments="".join(d.arguments for d in group)) for group in groups
            )
        self.deltas.clear()
        return taken

    def _announce(self) -> None:
        self.deltas.append(ToolCallDelta(self.count, self._id, self._name, "".join(self._held)))
        self.is_announced = True
        self.count += 1
