"""Failures that nobody expected, answered where the layers outside can still add to the answer."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_responses import error_response
from app.errors import to_api_error


class FailureMiddleware:
    """Answers 500 inside of CORS, so that a web page can read it; then the server logs the failure.

    Starlette answers outside of all middleware.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_started = False

        # No coroutine of its own: it runs for every piece of every stream.
        def watching_send(message: Message) -> Awaitable[None]:
            nonlocal is_started
            is_started = True
            return send(message)

        try:
            await self.app(scope, receive, watching_send)
        except Exception as error:
            if not is_started:
                await error_response(to_api_error(error), scope)(scope, receive, send)
            raise
