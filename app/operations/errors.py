"""Errors of operations: reasons why one is not carried out. The HTTP edge maps each class to a status."""

from __future__ import annotations

from collections.abc import Mapping


class OperationError(Exception):
    """An operation was refused or failed.

    ``param`` names what was given wrongly; ``retry_after`` is in seconds; ``details`` are for programs.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        *,
        retry_after: float | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.details = dict(details or {})


class UnknownInstance(OperationError):
    """No instance has the id."""


class UnknownUpstream(OperationError):
    """No upstream has the name."""


class UpstreamExists(OperationError):
    """Another upstream has the name."""


class UpstreamNotAllowed(OperationError):
    """An upstream's address is none that upstreams may have."""


class TooManyUpstreams(OperationError):
    """There are as many upstreams as there may be."""


class UnknownAdapter(OperationError):
    """A model has no adapter of the name."""


class AdapterExists(OperationError):
    """A model has an adapter of the name already."""


class RestartFailed(OperationError):
    """An instance did not come back. ``details``: the ids of the restarted, the failed and the untouched."""


class CannotRestart(RestartFailed):
    """An instance did not come back, nor will it as it is."""
