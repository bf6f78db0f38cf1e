"""The balancer's errors: why a call is not placed. The HTTP edge maps each class to a status."""

from __future__ import annotations

from typing import ClassVar

from engines.errors import EngineError

# What a client is told to wait when nothing better is known, in seconds.
DEFAULT_RETRY = 5.0


class BalancerError(Exception):
    """A call was not placed; ``retry_after`` seconds later it may be. ``is_permanent``: waiting alone mends
    nothing."""

    is_permanent: ClassVar[bool] = False

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class UnknownModel(BalancerError):
    """No backend serves the model and none could."""


class QueueFull(BalancerError):
    """Live backends are all busy, and the queue is full or the wait in it ran out."""


class NoBackend(BalancerError):
    """No backend of the model is alive."""


class CannotServe(BalancerError):
    """The model cannot be loaded, nor could it be later; ``reason`` says what is wrong."""

    is_permanent = True
    param = "model"

    def __init__(self, message: str, reason: EngineError) -> None:
        super().__init__(message)
        self.reason = reason


class LoopDetected(BalancerError):
    """The request came through the servers that it would be passed on to, or through too many."""


class NoRoom(BalancerError):
    """The model does not fit beside those that are in use, or at all."""


class ModelLoading(BalancerError):
    """The model is on its way: ``progress`` is 0..1, ``eta_seconds`` an estimate or None."""

    def __init__(
        self, message: str, *, retry_after: float, state: str, progress: float, eta_seconds: float | None
    ) -> None:
        super().__init__(message, retry_after)
        self.state = state
        self.progress = progress
        self.eta_seconds = eta_seconds


class BackendFailed(BalancerError):
    """A backend gave no answer, or broke off in the middle of one: it may have been lost or hang."""


class BadAnswer(BackendFailed):
    """A backend is there, but what it says is of no use: no HTTP, a redirect, an untrusted certificate."""

    is_permanent = True


class NotLetIn(BadAnswer):
    """A backend does not let this server in, with ``status`` 401, 403 or 407: the key that it was given is
    wrong, or not enough. The client's own key has nothing to do with it."""

    def __init__(self, message: str, status: int = 401) -> None:
        super().__init__(message)
        self.status = status


class BackendTimedOut(BackendFailed):
    """A backend did not answer, or not go on with its answer, in time."""


class RequestKills(EngineError):
    """One instance after the other failed while it computed the request: it is tried no more."""
