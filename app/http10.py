"""HTTP/1.0: answers to clients that know no chunks."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


def ended_by_closing(app: ASGIApp, cycle: Any) -> ASGIApp:
    """``app`` for the request of uvicorn's ``cycle``: what it sends without a length ends as the connection
    does, which uvicorn closes after each request of such a client."""

    async def unchunked(scope: Scope, receive: Receive, send: Send) -> None:
        is_endless = False

        async def send_unchunked(message: Message) -> None:
            nonlocal is_endless
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message.get("headers", ())}
                is_endless = b"content-length" not in names
                if is_endless:
                    cycle.chunked_encoding = False
            elif is_endless:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_unchunked)

    return unchunked
