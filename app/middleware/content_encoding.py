"""Compressed bodies: decoded before anybody reads them, within the bounds of plain ones."""

from __future__ import annotations

import asyncio
import zlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.body_memory import BodyMemory
from app.error_responses import error_response
from app.errors import ApiError

GZIP, DEFLATE = "gzip", "deflate"
_CODINGS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": DEFLATE}
_OWN_HEADERS = frozenset({b"content-encoding", b"content-length"})
# Decoded at once, in bytes: a few hundred kilobytes of a request may become as many megabytes.
SLICE = 64 * 2**10

_GZIP_WINDOW = zlib.MAX_WBITS | 16


class ContentEncodingMiddleware:
    """Decodes gzip and deflate; 415 for other codings, 413 once more than ``max_bytes`` came out.

    Stands inside of auth and the rate limit: nothing is decoded for strangers.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self._max_bytes = max_bytes
        self._memory = BodyMemory.for_bodies_of(max_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = _coding(scope) if scope["type"] == "http" else ""
        if not wanted:
            await self.app(scope, receive, send)
            return
        coding = _CODINGS.get(wanted)
        if coding is None:
            await error_response(_unsupported(wanted), scope)(scope, receive, send)
            return
        body = DecodedBody(receive, coding, self._max_bytes, self._memory)
        headers = [pair for pair in scope["headers"] if pair[0] not in _OWN_HEADERS]
        try:
            await self.app({**scope, "headers": headers}, body.receive, send)
        finally:
            body.release()


class DecodedBody:
    """An encoded body as the app receives it: decoded, a slice at a time."""

    def __init__(self, receive: Receive, coding: str, max_bytes: int, memory: BodyMemory) -> None:
        self._receive = receive
        self._coding = coding
        self._max_bytes = max_bytes
        self._memory = memory
        self._size = 0
        self._decoder: zlib._Decompress | None = None
        self._encoded = b""
        self._has_more = True  # of the encoded bytes
        self._is_full = False  # the last slice was: there may be more of it
        self._is_read = False

    async def receive(self) -> Message:
        """Raises `ApiError` for what is no such encoding, and too much of it."""
        if self._is_read:
            return await self._receive()
        while True:
            if self._is_full or self._can_decode():
                if data := self._decode():
                    await asyncio.sleep(0)
                    return {"type": "http.request", "body": data, "more_body": True}
            elif not self._has_more:
                self._check_end()
                self._is_read = True
                return {"type": "http.request", "body": b"", "more_body": False}
            else:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                self._encoded += message.get("body", b"")
                self._has_more = message.get("more_body", False)

    def release(self) -> None:
        self._memory.give_back(self._size)
        self._size = 0

    def _can_decode(self) -> bool:
        """Two bytes tell how it is encoded."""
        return len(self._encoded) > (self._decoder is None and self._has_more)

    def _decode(self) -> bytes:
        if self._decoder is None:
            self._decoder = zlib.decompressobj(_window(self._coding, self._encoded))
        if self._decoder.eof:
            raise self._broken("something follows its end")
        try:
            data = self._decoder.decompress(self._encoded, SLICE)
        except zlib.error as error:
            raise self._broken(str(error)) from None
        self._encoded = self._decoder.unconsumed_tail or self._decoder.unused_data
        self._is_full = len(data) == SLICE and not self._decoder.eof
        self._size += len(data)
        self._memory.take(len(data))
        if self._size > self._max_bytes:
            message = f"The decoded body is larger than {self._max_bytes} bytes."
            raise ApiError(413, "request_too_large", message)
        return data

    def _check_end(self) -> None:
        if self._decoder is not None and not self._decoder.eof:
            raise self._broken("it ends too early")

    def _broken(self, reason: str) -> ApiError:
        message = f"The body is not valid {self._coding}, as its Content-Encoding says: {reason}."
        return ApiError(400, "invalid_request_error", message)


def _coding(scope: Scope) -> str:
    """The codings of the body; none is an empty text."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"content-encoding"]
    if not values:
        return ""
    names = [name.strip().lower() for value in values for name in value.split(",")]
    return ", ".join(name for name in names if name not in ("", "identity"))


def _window(coding: str, beginning: bytes) -> int:
    if coding == GZIP:
        return _GZIP_WINDOW
    # RFC 9110 wants zlib's format for deflate, but some clients send what is inside of it.
    is_zlib = beginning[0] & 0x0F == zlib.DEFLATED and int.from_bytes(beginning[:2]) % 31 == 0
    return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS


def _unsupported(coding: str) -> ApiError:
    message = f"Content-Encoding {coding} is not supported: send gzip, deflate, or the body as it is."
    return ApiError(415, "unsupported_encoding", message, headers={"Accept-Encoding": "gzip, deflate"})
