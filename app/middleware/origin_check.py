"""Keeps foreign web pages from making a browser send requests that change or cost something.

A browser sends simple requests without asking first, from any page, also to servers that only it can
reach. It keeps the answer from the page, but by then the work is done.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from app.error_responses import error_response
from app.errors import ApiError
from app.hosts import ANY, is_same_origin
from app.middleware.credentials import keys_of

READING = frozenset({"GET", "HEAD", "OPTIONS"})


class OriginCheckMiddleware:
    """403 for a request by a page that is neither this server's nor of one of the ``allowed`` origins.

    Only browsers tell an Origin. With a key, real or not, a request passes: no page can send one
    unless the server allowed it before.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str] = ()) -> None:
        self.app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in READING and self._is_foreign(scope):
            await error_response(_refusal(), scope)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        foreign = [each for each in _values(scope, b"origin") if each.lower() not in self._allowed]
        if not foreign or ANY in self._allowed:
            return False
        hosts = _values(scope, b"host")
        if all(any(is_same_origin(each, host) for host in hosts) for each in foreign):
            return False
        return not keys_of(scope)


def _values(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


def _refusal() -> ApiError:
    message = "Pages from this origin may not use this server: CORS_ORIGINS lists the origins that may."
    return ApiError(403, "origin_not_allowed", message)
