"""The paths that the guards look at."""

from __future__ import annotations

from starlette.types import Scope


def is_api(scope: Scope) -> bool:
    """Whether the request is for a path under /v1, seen from below the app's root path.

    Decides as Starlette's router does, so that no prefix hides an API route from the guards.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and (path == root or path.startswith(root.rstrip("/") + "/")):
        path = path[len(root.rstrip("/")) :]
    return path == "/v1" or path.startswith("/v1/")
