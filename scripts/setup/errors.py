"""What can end a set-up."""

from __future__ import annotations


class SetupError(Exception):
    """Set-up cannot go on; the message says why and what to do."""


class StepFailed(SetupError):
    """A command failed; ``output`` is the end of what it printed."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output
