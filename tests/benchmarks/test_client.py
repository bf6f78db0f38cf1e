"""The benchmarks' HTTP client: when an answer is whole, and what is said of one that is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.load.client import JSON, RequestFailed, ask, ask_all, connect, post_request
from support.bad_upstream import EVENTS, Script, answer, bad_upstream, events, raw

EVENT_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


@asynccontextmanager
async def listening(*scripts: Script) -> AsyncIterator[str]:
    """The base URL of a server that answers with ``scripts``."""
    async with bad_upstream(*scripts) as upstream:
        yield upstream.url.removesuffix("/v1")


async def collect(url: str, count: int = 1) -> list[bytes]:
    """The bodies of ``count`` answers over one connection."""
    connection = await connect(url)
    bodies = []
    try:
        for _ in range(count):
            pieces: list[bytes] = []
            await connection.post(post_request(url, "/x", b"{}", JSON), pieces.append)
            bodies.append(b"".join(pieces))
    finally:
        connection.close()
    return bodies


async def test_a_connection_is_kept_between_requests() -> None:
    async with bad_upstream(answer(b"one"), answer(b"two"), events(b"th", b"ree")) as upstream:
        assert await collect(upstream.url, 3) == [b"one", b"two", b"three"]
    assert upstream.connections == 1


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with listening(raw(EVENT_STREAM + b"connection: close\r\n\r\n", *EVENTS)) as url:
        got = await ask(url, b"{}")
    assert got.error is None
    assert got.is_done
    assert (len(got.arrivals), got.prompt_tokens, got.completion_tokens) == (2, 5, 2)
    assert got.sent <= got.arrivals[0] <= got.ended


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (raw(EVENT_STREAM + b"transfer-encoding: chunked\r\n\r\n5\r\ndata"), "the connection was closed"),
        (raw(b"nonsense\r\n\r\n"), "no HTTP"),
        (raw(), "the connection was closed"),
        (answer(b'{"error":{"message":"no room"}}', status=b"503 Busy"), r"no room \(HTTP 503\)"),
    ],
    ids=["cut", "no HTTP", "nothing", "refused"],
)
async def test_half_an_answer_fails_with_its_reason(script: Script, reason: str) -> None:
    async with listening(script) as url:
        with pytest.raises(RequestFailed, match=reason):
            await collect(url)


async def test_what_the_reader_of_a_body_raises_reaches_the_caller() -> None:
    def refuse(data: bytes) -> None:
        raise ValueError("not this")

    async with listening(answer()) as url:
        connection = await connect(url)
        with pytest.raises(ValueError, match="not this"):
            await connection.post(post_request(url, "/x", b"{}", JSON), refuse)
        connection.close()


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        (EVENTS[:-1], "the stream ended without [DONE]"),
        ([*EVENTS[:2], b'data: {"error":{"message":"tripped"}}\n\n'], "tripped"),
    ],
)
async def test_failures_of_a_stream_are_in_its_answer(parts: list[bytes], error: str) -> None:
    async with listening(events(*parts)) as url:
        got = await ask(url, b"{}")
    assert (got.error, got.is_done) == (error, False)


async def test_a_server_that_is_not_there_is_an_error_of_the_answer() -> None:
    async with listening(answer()) as url:
        pass
    assert "ConnectionRefusedError" in str((await ask(url, b"{}")).error)


async def test_a_closed_loop_asks_for_everything_once() -> None:
    async with listening(events(*EVENTS)) as url:
        answers = await ask_all(url, [b"{}"] * 7, 3)
    assert len(answers) == 7
    assert all(each.is_done and each.error is None for each in answers)


async def test_cancelling_closes_the_connection() -> None:
    async def hang(wire: object) -> None:
        await asyncio.Event().wait()

    async with bad_upstream(hang) as upstream:
        task = asyncio.create_task(ask(upstream.url, b"{}"))
        async with asyncio.timeout(5):
            while not upstream.requests:
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait_for(upstream.lost.wait(), 5)
