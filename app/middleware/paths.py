"""The paths that the guards look at."""

from __future__ import annotations

from starlette.types import Scope

# What probes and scrapers ask for, as often as they like.
_PROBED = frozenset({"/v1/system/health", "/v1/system/metrics"})


def is_api(scope: Scope) -> bool:
    """Whether the request is for a path under /v1, seen from below the app's root path."""
    path = _route_path(scope)
    return path == "/v1" or path.startswith("/v1/")


def is_probe(scope: Scope) -> bool:
    """Whether the request is for the health or the metrics of the server."""
    return _route_path(scope) in _PROBED


def _route_path(scope: Scope) -> str:
    """The path that Starlette's router sees: no prefix may hide an API route from the guards."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and (path == root or path.startswith(root.rstrip("/") + "/")):
        path = path[len(root.rstrip("/")) :]
    return path
