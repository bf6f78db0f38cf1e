"""A small client of the OpenAI chat API for the command line: server-sent events and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

TIMEOUT = httpx.Timeout(10.0, read=300.0)
"""Seconds. Reading waits long: a queue or a long prompt may come before the first token."""


class ServerError(Exception):
    """The server answered with an error; the message is its own."""


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


def first_model(http: httpx.Client) -> str:
    """The first model that the server lists. Raises `ServerError` if there is none."""
    reply = http.get("/v1/models")
    if reply.status_code != 200:
        raise ServerError(error_message(reply.content, reply.status_code))
    try:
        return str(reply.json()["data"][0]["id"])
    except (ValueError, LookupError, TypeError):
        raise ServerError("The server lists no model") from None


def stream_chat(http: httpx.Client, request: dict[str, Any]) -> Iterator[str]:
    """Text of a streamed chat completion, piece by piece.

    Closing the iterator closes the connection, which makes the server stop. Raises `ServerError` for
    an error status, an error in the stream, and a stream that ends without ``[DONE]``.
    """
    with http.stream("POST", "/v1/chat/completions", json=request) as reply:
        if reply.status_code != 200:
            raise ServerError(error_message(reply.read(), reply.status_code))
        splitter = LineSplitter()
        for data in reply.iter_bytes():
            for line in splitter.feed(data):
                payload = event_data(line)
                if payload == b"[DONE]":
                    return
                if payload:
                    yield from _text(payload)
    raise ServerError("The answer was cut off")


def _text(payload: bytes) -> Iterator[str]:
    event = json.loads(payload)
    if "error" in event:
        raise ServerError(error_message(payload))
    for choice in event.get("choices", ()):
        if text := choice.get("delta", {}).get("content"):
            yield text
