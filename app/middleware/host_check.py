"""Refuses requests that address the server by a name that is not its own.

A web page can make its own name lead to this machine (DNS rebinding) and then read what the server answers:
to the browser it is all one site. Only the Host header tells.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from app.error_responses import error_response
from app.errors import ApiError
from app.hosts import host_of, is_loopback, is_named


class HostCheckMiddleware:
    """403 for a Host that is neither this machine's own name nor one of ``allowed``.

    Without the header a request passes: it comes from no browser.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str] = ()) -> None:
        self.app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"host" and not self._is_ours(value):
                    await error_response(_refusal(), scope)(scope, receive, send)
                    return
        await self.app(scope, receive, send)

    def _is_ours(self, value: bytes) -> bool:
        host = host_of(value.decode("latin-1"))
        return host is not None and (is_loopback(host) or is_named(host, self._allowed))


def _refusal() -> ApiError:
    message = "This server is not to be addressed by this name: ALLOWED_HOSTS lists the names that it has."
    return ApiError(403, "host_not_allowed", message)
