"""Paths of requests, and what the guards look at in them."""

from __future__ import annotations

from starlette.types import Scope

API = "/v1"
# Of an upload, what may be around the file.
FORM_BYTES = 64 * 2**10
# Where OpenAI's API, its neighbours' and Ollama's are.
_GUARDED = (API, "/api")
_ANTHROPIC = b"anthropic-version"
# What probes and scrapers ask for, as often as they like.
_PROBED = frozenset({"/v1/system/health", "/v1/system/metrics"})


def is_api(scope: Scope) -> bool:
    """Whether the request is for a path under /v1 or /api, seen from below the app's root path."""
    path = route_path(scope)
    return any(path == start or path.startswith(f"{start}/") for start in _GUARDED)


def is_upload(method: str, path: str) -> bool:
    """Whether such a request carries a file, which goes to the disk as it comes. However ``path`` is spelt:
    where there is no such route, nothing is read either."""
    return method == "POST" and path.rstrip("/").endswith("/files")


def is_probe(scope: Scope) -> bool:
    """Whether the request is for the health or the metrics of the server."""
    return route_path(scope) in _PROBED


def speaks_anthropic(scope: Scope) -> bool:
    """Whether a client of Anthropic's API sent the request: it names the version of that in a header."""
    return any(name == _ANTHROPIC for name, _ in scope.get("headers", ()))


def route_path(scope: Scope) -> str:
    """The path that Starlette's router sees: no prefix may hide an API route from the guards."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and (path == root or path.startswith(root.rstrip("/") + "/")):
        path = path[len(root.rstrip("/")) :]
    return path
