"""Pings of streams that are silent for long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from app.errors import ApiError, error_body, to_api_error
from app.inference.pings import Pings
from app.sse import HEADERS, sse

PING = b"event: ping\n\n"
START: Message = {"type": "http.response.start", "status": 200, "headers": list(HEADERS)}


class Client:
    """What it was sent."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.data = b""
        self.is_over = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            assert not self.statuses
            self.statuses.append(message["status"])
            return
        assert self.statuses
        assert not self.is_over
        self.data += message.get("body", b"")
        self.is_over = not message.get("more_body", False)


def body(data: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def pings_to(client: Client, **options: Any) -> Pings:
    told = {"is_served": lambda: True, "error_event": lambda e: sse(error_body(to_api_error(e)), "error")}
    return Pings(client.send, PING, wait=0.01, **{**told, **options})


async def silence() -> None:
    await asyncio.sleep(0.03)


async def test_pings_open_a_response_and_stand_between_events() -> None:
    client = Client()
    pings = pings_to(client)
    await silence()
    assert (client.statuses, client.data[: len(PING)]) == ([200], PING)
    await pings(START)
    before = client.data
    await pings(body(b"data: 1"))
    await silence()
    assert client.data == before + b"data: 1"  # in the midst of an event
    await pings(body(b"\n\n"))
    await silence()
    assert client.data.startswith(before + b"data: 1\n\n" + PING)
    await pings(body(b"", more=False))
    before = client.data
    await silence()
    assert (client.data, client.is_over) == (before, True)


async def test_who_waits_for_a_backend_is_told_nothing() -> None:
    client = Client()
    pings = pings_to(client, is_served=lambda: False)
    await silence()
    await pings({**START, "status": 503, "headers": []})
    await pings(body(b"{}", more=False))
    assert (client.statuses, client.data, pings.has_opened) == ([503], b"{}", False)


@pytest.mark.parametrize(
    ("document", "message"),
    [(b'{"error": {"message": "Too long.", "code": "x"}}', b"Too long."), (b"?", b"The backend refused")],
)
async def test_an_error_that_comes_too_late_is_an_event(document: bytes, message: bytes) -> None:
    client = Client()
    pings = pings_to(client)
    await silence()
    await pings({**START, "status": 400, "headers": [(b"content-type", b"application/json")]})
    await pings(body(document))
    await pings(body(b"", more=False))
    assert client.is_over
    assert message in client.data
    assert client.data.startswith(PING)
    assert b"event: error\n" in client.data


async def test_a_failure_that_comes_too_late_is_an_event() -> None:
    client = Client()
    pings = pings_to(client)
    await silence()
    assert pings.has_opened
    await pings.fail(ApiError(503, "no_backend", "Nobody is there."))
    assert client.data.endswith(b"\n\n")
    assert (client.is_over, b"Nobody is there." in client.data) == (True, True)
