"""A name for each request, in its logs, its response and its error; and its line in the log."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from app.paths import speaks_anthropic
from app.telemetry.request_log import RequestLine

# Printable ASCII without spaces: what goes into a header and a log line unchanged.
_SANE = re.compile(rb"[!-~]{1,128}")
# In whatever way the path is spelt.
_MESSAGES = "/messages"
# Characters of a client's id that are in the id of the answer, which is sane too.
_MOST_GIVEN = 100


class RequestIdMiddleware:
    """Takes a sane ``x-request-id`` or makes one; it is in ``scope["state"]["request_id"]``.

    Clients may send one id twice, so ``scope["state"]["answer_id"]`` is this request's alone. Clients of
    Anthropic's API are told it as ``request-id`` too.

    ``is_logged``: whether each request has a line in the log, once it has ended.
    """

    def __init__(self, app: ASGIApp, *, is_logged: bool = False) -> None:
        self.app = app
        self._is_logged = is_logged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = _incoming(scope)
        request_id = given or f"req_{secrets.token_hex(12)}"
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["answer_id"] = f"{given[:_MOST_GIVEN]}-{secrets.token_hex(6)}" if given else request_id
        # Cleared at the start and not unbound at the end: what escapes the app is logged by the server
        # after we returned. A server runs each request in a context of its own.
        clear_contextvars()
        bind_contextvars(request_id=request_id)
        own = [(b"x-request-id", request_id.encode("ascii"))]
        if speaks_anthropic(scope) or _MESSAGES in scope["path"]:
            own.append((b"request-id", request_id.encode("ascii")))

        line = RequestLine.begun(scope["method"], scope["path"]) if self._is_logged else None

        # No coroutine of its own: it runs for every piece of every stream.
        def send_with_id(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                others = (pair for pair in message.get("headers", ()) if pair[0].lower() != b"x-request-id")
                message = {**message, "headers": [*others, *own]}
                if line is not None:
                    line.status = message["status"]
            return send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            if line is not None:
                line.write()


def _incoming(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode("ascii") if _SANE.fullmatch(value) else None
    return None
