"""Answers as bytes: the lines of event streams, and the message of an error.

Light, for load generators too.
"""

from __future__ import annotations

import json

DONE = b"[DONE]"


class LineSplitter:
    """Cuts a byte stream into lines, whatever the pieces it arrives in.

    Lines end with LF or CRLF; a lone CR, which no server is known to send, is not an end.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their ends."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        return [line.removesuffix(b"\r") for line in lines]


def event_data(line: bytes) -> bytes | None:
    """The payload of an event stream's ``data:`` line; None for any other line."""
    if not line.startswith(b"data:"):
        return None
    return line[5:].removeprefix(b" ")


def error_message(body: bytes, status: int | None = None) -> str:
    """The message of an error in OpenAI's envelope, or the body if it is something else."""
    where = f" (HTTP {status})" if status else ""
    try:
        return f"{json.loads(body)['error']['message']}{where}"
    except (ValueError, LookupError, TypeError):
        return (body[:500].decode(errors="replace").strip() or "The server gave no reason") + where
