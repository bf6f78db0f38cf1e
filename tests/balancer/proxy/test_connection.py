"""The wire: answers of old and odd servers, and bytes that are none. Nothing hangs, grows or surprises."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from balancer.errors import BackendFailed
from balancer.proxy.client import ProxyClient
from balancer.proxy.connection import MAX_HEAD
from engines.base import Usage
from support.bad_upstream import (
    DOCUMENT,
    EVENTS,
    Script,
    Wire,
    answer,
    ask,
    ask_worker,
    bad_upstream,
    events,
    flood,
    hang,
    raw,
    read,
    read_until_failure,
)
from support.meter import Meter

JSON = b"content-type: application/json\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n"
LONG = b"a" * 2000
DEEP = b"[" * 100_000


# -- HTTP/1.0 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\n" + JSON + b"content-length: %d\r\n\r\n" % len(DOCUMENT),
        b"HTTP/1.0 200 OK\r\n" + JSON + b"\r\n",
        b"HTTP/1.0 200 OK\r\n" + JSON + b"connection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + JSON + b"connection: close\r\n\r\n",
    ],
)
async def test_old_servers(relay: ProxyClient, head: bytes) -> None:
    async with bad_upstream(raw(head, DOCUMENT)) as upstream:
        for _ in range(2):
            meter = Meter()
            reply = await ask(relay, upstream, meter)
            assert (reply.status, await read(reply)) == (200, DOCUMENT)
            assert meter.usage == Usage(5, 2, 3)
        assert await relay.get(upstream.url + "/models") == (200, DOCUMENT)
        assert upstream.connections == 3


async def test_an_old_server_that_keeps_its_connections(relay: ProxyClient) -> None:
    whole = b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\n{}"
    async with bad_upstream(kept(whole)) as upstream:
        for _ in range(2):
            assert await read(await ask(relay, upstream)) == b"{}"
        assert upstream.connections == 1


async def test_an_old_servers_stream(relay: ProxyClient) -> None:
    head = b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    async with bad_upstream(raw(head, *EVENTS), raw(head, EVENTS[0])) as upstream:
        assert await read(await ask(relay, upstream)) == b"".join(EVENTS)
        data, message = await read_until_failure(await ask(relay, upstream))
        assert data == EVENTS[0]
        assert "without an end mark" in message


async def test_half_of_an_old_servers_answer(relay: ProxyClient) -> None:
    async with bad_upstream(raw(b"HTTP/1.0 200 OK\r\ncontent-length: 9\r\n\r\n{}")) as upstream:
        data, message = await read_until_failure(await ask(relay, upstream))
        assert (data, "broke off" in message) == (b"{}", True)


def kept(data: bytes) -> Script:
    """``data`` as it is; the connection stays open for the next request."""

    async def script(wire: Wire) -> None:
        await wire.send(data)

    return script


# -- statuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [b"000", b"001", b"042", b"099", b"600", b"799", b"999"])
@pytest.mark.parametrize(
    "rest", [b"content-length: 2\r\n\r\n{}", b"\r\n", b"transfer-encoding: chunked\r\n\r\n"]
)
async def test_statuses_that_do_not_exist(relay: ProxyClient, status: bytes, rest: bytes) -> None:
    head = b"HTTP/1.1 %s Odd\r\n%s%s" % (status, JSON, rest)
    async with bad_upstream(raw(head, close=False)) as upstream:
        async with asyncio.timeout(5):
            with pytest.raises(BackendFailed, match=f"answered with status {status.decode()}"):
                await ask(relay, upstream)
            with pytest.raises(BackendFailed, match=f"answered with status {status.decode()}"):
                await relay.get(upstream.url + "/models", timeout=1.0)


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 -200 OK",
        b"HTTP/1.1 abc OK",
        b"HTTP/1.1",
        b"HTTP/9.9 200 OK",
        b"ICY 200 OK",
        b"GET / HTTP/1.1",
        b"\x00\x00\x00\x0c\x04",
        b"{}",
    ],
)
async def test_first_lines_that_are_none(relay: ProxyClient, line: bytes) -> None:
    async with bad_upstream(raw(line + b"\r\n" + JSON + b"\r\n{}", close=False)) as upstream:
        with pytest.raises(BackendFailed, match=r"does not speak HTTP|sent nothing"):
            await ask(relay, upstream)


@pytest.mark.parametrize(
    "lines",
    [
        b"no colon\r\n",
        b": no name\r\n",
        b"a\x00b: c\r\n",
        b"content-length: -1\r\n",
        b"content-length: 99999999999999999999999\r\n",
        b"content-length: 2, 2\r\n",
        b"content-length: two\r\n",
    ],
)
async def test_headers_that_are_none(relay: ProxyClient, lines: bytes) -> None:
    async with bad_upstream(raw(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n{}", close=False)) as upstream:
        with pytest.raises(BackendFailed, match="does not speak HTTP"):
            await ask(relay, upstream)


# -- interim answers --------------------------------------------------------------------------------


async def test_endless_interim_answers(relay: ProxyClient) -> None:
    patient = ProxyClient()
    async with bad_upstream(flood(b"", b"HTTP/1.1 102 Processing\r\nx: y\r\n\r\n")) as upstream:
        with pytest.raises(BackendFailed, match="bytes of headers"):
            await asyncio.wait_for(ask(patient, upstream), 5)
    await patient.close()


async def test_interim_answers_that_come_slowly_do_not_count_as_an_answer(relay: ProxyClient) -> None:
    async def script(wire: Wire) -> None:
        while True:
            await wire.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.02)

    async with bad_upstream(script) as upstream:
        with pytest.raises(BackendFailed, match="sent nothing"):
            await asyncio.wait_for(ask(relay, upstream), 5)


# -- what is not body, around the body --------------------------------------------------------------


@pytest.mark.parametrize("type_", [b"application/json", b"text/event-stream"])
@pytest.mark.parametrize("first", [b"", b"2\r\n{}\r\n"])
@pytest.mark.parametrize(
    ("start", "part"),
    [
        (b"0\r\n", b"x-trailer: %s\r\n" % LONG),
        (b"0\r\nx-trailer: ", LONG),
        (b"0\r\n" + LONG, LONG),
        (b"5;name=", LONG),
        (b"5", b";name=%s" % LONG),
        (b"0;name=", LONG),
        (b"", b"0" * 2000),
    ],
    ids=[
        "trailers",
        "a trailer",
        "a trailer's name",
        "an extension",
        "extensions",
        "the last chunk's",
        "zeros",
    ],
)
async def test_endless_trailers_and_extensions(
    patient: ProxyClient, type_: bytes, first: bytes, start: bytes, part: bytes
) -> None:
    async with bad_upstream(flood(CHUNKED % type_ + first + start, part)) as upstream:
        reply = await ask(patient, upstream)
        tracemalloc.start()
        try:
            data, message = await asyncio.wait_for(read_until_failure(reply), 5)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert data == first[3:5]
        assert "bytes of headers" in message or "does not speak HTTP" in message
        assert most < 5_000_000
        await asyncio.wait_for(upstream.lost.wait(), 5)


async def test_trailers_and_extensions_of_a_size_that_makes_sense(relay: ProxyClient) -> None:
    chunk = b"1;name=%s\r\n \r\n" % LONG
    trailers = b"".join(b"content-type: %d\r\nx-%d: %s\r\n" % (i, i, LONG) for i in range(10))
    whole = CHUNKED % b"application/json" + chunk * 100 + b"0\r\n" + trailers + b"\r\n"
    async with bad_upstream(kept(whole)) as upstream:
        for _ in range(2):
            reply = await ask(relay, upstream)
            assert await read(reply) == b" " * 100
            assert dict(reply.headers) == {b"content-type": b"application/json"}
        assert upstream.connections == 1


async def test_trailers_that_come_slowly(relay: ProxyClient) -> None:
    async def script(wire: Wire) -> None:
        await wire.send(CHUNKED % b"application/json" + b"2\r\n{}\r\n0\r\n")
        while True:
            await wire.send(b"x: y\r\n")
            await asyncio.sleep(0.02)

    async with bad_upstream(script) as upstream:
        data, message = await asyncio.wait_for(read_until_failure(await ask(relay, upstream)), 5)
        assert data == b"{}"
        assert "stopped in the middle" in message


@pytest.mark.parametrize("head", [b"", b"content-length: 999999999999\r\n"])
async def test_an_endless_document_passes_and_leaves_nothing(patient: ProxyClient, head: bytes) -> None:
    """Nobody keeps it, and it is over when its reader leaves."""
    endless = flood(b"HTTP/1.1 200 OK\r\n" + JSON + head + b"\r\n", b" " * 100_000)
    async with bad_upstream(endless) as upstream:
        reply = await ask(patient, upstream)
        passed = 0
        tracemalloc.start()
        try:
            async for data in reply.body:
                passed += len(data)
                if passed > 20_000_000:
                    break
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        reply.body.close()
        assert most < 5_000_000
        await asyncio.wait_for(upstream.lost.wait(), 5)


async def test_the_headers_just_fit(relay: ProxyClient) -> None:
    line = b"x: %s\r\n" % (b"a" * 1000)
    lines = line * ((MAX_HEAD - 200) // len(line))
    async with bad_upstream(answer(b"{}", lines.rstrip())) as upstream:
        assert await read(await ask(relay, upstream)) == b"{}"


# -- bodies that are none ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        DEEP,
        b'{"usage":' + DEEP,
        b'{"usage":{"prompt_tokens_details":' + DEEP,
        b'{"data":' + DEEP,
        b"\xff" * 1000,
    ],
)
async def test_bodies_that_are_none(relay: ProxyClient, body: bytes) -> None:
    async with bad_upstream(answer(body), events(body, EVENTS[-1]), events(body, then=hang)) as upstream:
        meter = Meter()
        reply = await ask(relay, upstream, meter)
        assert await read(reply) == body
        reply = await ask(relay, upstream, meter)
        assert await read(reply) == body + EVENTS[-1]
        assert meter.usage is None
        data, _ = await read_until_failure(await ask(relay, upstream))
        assert data == body


@pytest.mark.parametrize(
    "body",
    [
        b":usage " + DEEP,
        b":usage [1]",
        b':usage "x"',
        b":error " + DEEP,
        b":begin " + DEEP,
        b":tokens " + DEEP,
    ],
)
async def test_events_of_a_worker_that_are_none(relay: ProxyClient, body: bytes) -> None:
    async with bad_upstream(events(body + b"\n\n")) as upstream:
        data, message = await read_until_failure(await ask_worker(relay, upstream))
        assert (data, "no sense" in message) == (b"", True)
