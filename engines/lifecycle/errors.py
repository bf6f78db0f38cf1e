"""Errors of loading and unloading models."""

from __future__ import annotations

from engines.errors import EngineError


class ModelConflict(EngineError):
    """The model is in use, pinned or being loaded in another way."""


class InsufficientMemory(EngineError):
    """The model does not fit now; ``retry_after`` seconds later it may, where that is known."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NeverFits(InsufficientMemory):
    """The model does not fit however long one waits: the budget or what is pinned would have to change."""

    is_permanent = True
