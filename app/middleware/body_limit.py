"""Refuses bodies that are too large before they fill the memory."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_responses import error_response
from app.errors import ApiError
from app.paths import FORM_BYTES, is_upload, route_path


class BodyLimitMiddleware:
    """413 at once if Content-Length says too much, else as soon as more than ``max_bytes`` came; of an upload
    more than a file of ``max_file_bytes``.

    The rest of a refused body is left to the server, which discards it: asking the client to close the
    connection instead would reset it while the client still sends, and the 413 would never be read.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_file_bytes: int = 0) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self._max_upload_bytes = max(max_bytes, max_file_bytes + FORM_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = self._most(scope)
        if (length := _content_length(scope)) is None:
            await self._counted(scope, receive, send, most)
        elif length > most:
            await self._refuse(scope, receive, send, most)
        else:
            # The server lets no more through than what was announced.
            await self.app(scope, receive, send)

    def _most(self, scope: Scope) -> int:
        return self._max_upload_bytes if is_upload(scope["method"], route_path(scope)) else self.max_bytes

    async def _counted(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        received = 0
        refused = started = False

        async def counting_receive() -> Message:
            nonlocal received, refused
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                refused = True
                raise _error(most)
            return message

        async def watching_send(message: Message) -> None:
            nonlocal started
            if refused and not started:
                return  # whatever the app makes of our exception, the answer is ours
            started = True
            await send(message)

        try:
            await self.app(scope, counting_receive, watching_send)
        except Exception:
            if not refused or started:
                raise
        if refused and not started:
            await self._refuse(scope, receive, send, most)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        await error_response(_error(most), scope)(scope, receive, send)


def _error(most: int) -> ApiError:
    return ApiError(413, "request_too_large", f"The body is larger than {most} bytes.")


def _content_length(scope: Scope) -> int | None:
    """The announced length; None for a chunked body, whatever else its headers claim."""
    length = None
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length" and value.isdigit():
            length = int(value)
    return length
