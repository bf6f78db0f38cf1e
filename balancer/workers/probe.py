"""One question to an instance, on a connection of its own: it shows that new calls are taken, too."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from balancer.workers.ports import LOOPBACK


async def ask(port: int, path: str, key: str) -> dict[str, Any]:
    """The JSON object that GET ``path`` answers. Raises `OSError`, or `ValueError` for any other answer."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        # HTTP/1.0: the answer comes in one piece, and its end is the connection's.
        writer.write(
            f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}:{port}\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
        )
        answer = await reader.read()
    finally:
        writer.transport.abort()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.partition(b"\r\n")[0].decode("latin-1")
    if status.split(" ")[1:2] != ["200"]:
        raise ValueError(f"it answered {status!r}")
    answered = json.loads(body)
    if not isinstance(answered, dict):
        raise ValueError("it answered no JSON object")
    return answered
