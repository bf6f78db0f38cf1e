"""HEAD: every GET route's answer without its body."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Asks the routes for GET where the client sent HEAD, and keeps the body back; an endless one ends."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            # At once: the first piece of an endless body may be long in coming.
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        # A copy: the server leaves the framing of a body out by the method that it put into its own.
        await self.app({**scope, "method": "GET"}, receive, send_head)
