"""The relay against upstreams that behave, and that do not. Real sockets; nothing waits long."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc

import pytest

from app.dialects.openai.wire import WIRE
from balancer.errors import BackendFailed, BackendTimedOut, BadAnswer
from balancer.proxy.client import ProxyClient
from balancer.proxy.connection import HIGH_WATER, MAX_HEAD
from engines.base import Usage
from support.bad_upstream import (
    DOCUMENT,
    EVENTS,
    answer,
    ask,
    ask_worker,
    bad_upstream,
    events,
    flood_events,
    flood_headers,
    hang,
    raw,
    read,
    read_until_failure,
    reset,
)
from support.meter import Meter

USAGE = Usage(5, 2, 3)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"

# -- answers ----------------------------------------------------------------------------------------


async def test_a_document(patient: ProxyClient) -> None:
    async with bad_upstream(answer()) as upstream:
        meter = Meter()
        reply = await ask(patient, upstream, meter)
        assert (reply.status, await read(reply)) == (200, DOCUMENT)
        assert meter.usage == USAGE
        assert dict(reply.headers)[b"content-length"] == b"%d" % len(DOCUMENT)


async def test_events(patient: ProxyClient) -> None:
    async with bad_upstream(events(*EVENTS)) as upstream:
        meter = Meter()
        reply = await ask(patient, upstream, meter)
        assert await read(reply) == b"".join(EVENTS)
        assert meter.usage == USAGE
        assert reply.body.resume_point() is None


@pytest.mark.parametrize("type_", [b"text/html", b"text/html; charset=utf-8", b"image/png", b""])
async def test_a_page_is_no_answer(patient: ProxyClient, type_: bytes) -> None:
    page = b"<html>Log in"
    async with bad_upstream(
        answer(page, type=type_), answer(page, type=type_, status=b"500 Oops")
    ) as upstream:
        with pytest.raises(BadAnswer, match="answers with "):
            await ask(patient, upstream)
        reply = await ask(patient, upstream)
        assert (reply.status, await read(reply)) == (500, page)
        assert dict(reply.headers)[b"content-type"] == b"text/plain; charset=utf-8"


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"404 Not Found"])
async def test_nothing_is_no_answer(patient: ProxyClient, status: bytes) -> None:
    async with bad_upstream(answer(b"", status=status)) as upstream:
        reply = await ask(patient, upstream)
        if reply.status == 404:
            assert await read(reply) == b""
            return
        with pytest.raises(BadAnswer, match="answered with nothing"):
            await read(reply)


async def test_connections_are_used_again(patient: ProxyClient) -> None:
    async with bad_upstream(
        answer(), events(*EVENTS), answer(b"", status=b"204 No Content"), answer()
    ) as upstream:
        for _ in range(2):
            await read(await ask(patient, upstream))
        with pytest.raises(BadAnswer, match=r"answered with nothing \(status 204\)"):
            await read(await ask(patient, upstream))
        await read(await ask(patient, upstream))
        assert [request.connection for request in upstream.requests] == [1, 1, 1, 1]


@pytest.mark.parametrize("script", [raw(HEAD + b"\r\n{}"), answer(DOCUMENT, b"connection: close")])
async def test_connections_that_end_with_their_answer(patient: ProxyClient, script: object) -> None:
    async with bad_upstream(script) as upstream:  # type: ignore[arg-type]
        for _ in range(2):
            assert await read(await ask(patient, upstream)) in (b"{}", DOCUMENT)
        assert upstream.connections == 2


@pytest.mark.parametrize(
    ("status", "header"),
    [(b"500 Oops", b"x: y"), (b"429 Slow down", b"Retry-After: 7"), (b"599 Odd", b"x: y")],
)
async def test_any_status_is_a_reply(patient: ProxyClient, status: bytes, header: bytes) -> None:
    async with bad_upstream(answer(b'{"error":{}}', header, status=status)) as upstream:
        reply = await ask(patient, upstream)
        assert reply.status == int(status[:3])
        assert await read(reply) == b'{"error":{}}'
        assert dict(reply.headers).get(b"retry-after") == (b"7" if reply.status == 429 else None)


async def test_interim_answers_are_passed_over(patient: ProxyClient) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    whole = HEAD + b"content-length: 2\r\n\r\n{}"
    async with bad_upstream(raw(interim, interim + whole)) as upstream:
        reply = await ask(patient, upstream)
        assert (reply.status, await read(reply)) == (200, b"{}")
        assert b"link" not in dict(reply.headers)


async def test_encoded_bodies_pass_as_they_are(patient: ProxyClient) -> None:
    body = gzip.compress(DOCUMENT)
    async with bad_upstream(answer(body, b"content-encoding: gzip", type=b"text/event-stream")) as upstream:
        meter = Meter()
        reply = await ask(patient, upstream, meter)
        assert await read(reply) == body
        assert dict(reply.headers)[b"content-encoding"] == b"gzip"
        assert meter.usage is None
        assert upstream.requests[0].headers["accept-encoding"] == "identity"


async def test_garbage_events_pass_as_they_are(patient: ProxyClient) -> None:
    garbage = b'\x00\xff nonsense\n\ndata: {"usage": {"prompt_tokens": \n\n'
    async with bad_upstream(events(garbage, EVENTS[-1])) as upstream:
        meter = Meter()
        reply = await ask(patient, upstream, meter)
        assert await read(reply) == garbage + EVENTS[-1]
        assert meter.usage is None


# -- headers ----------------------------------------------------------------------------------------


async def test_what_the_upstream_is_told(patient: ProxyClient) -> None:
    headers = [
        (b"authorization", b"Bearer client"),
        (b"x-api-key", b"client"),
        (b"api-key", b"client"),
        (b"content-encoding", b"gzip"),
        (b"cookie", b"a=b"),
        (b"host", b"gateway"),
        (b"connection", b"upgrade"),
        (b"proxy-authorization", b"x"),
        (b"content-length", b"99"),
        (b"x-forwarded-for", b"10.0.0.1"),
        (b"x-enginehouse-parent", b"1"),
        (b"x-enginehouse-resume", b"1"),
        (b"x-enginehouse-hops", b"0123456789abcdef"),
        (b"content-type", b"application/json"),
        (b"traceparent", b"00-1"),
        (b"accept", b"x\r\nx-injected: 1"),
    ]
    async with bad_upstream(answer()) as upstream:
        url = upstream.url + "/chat/completions"
        await read(
            await patient.post(url, headers, b"{}", wire=WIRE, meter=Meter(), key="sk-1", request_id="req_1")
        )
        [request] = upstream.requests
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.body == b"{}"
    assert request.headers == {
        "host": upstream.url.split("/")[2],
        "accept-encoding": "identity",
        "content-type": "application/json",
        "traceparent": "00-1",
        "x-request-id": "req_1",
        "x-enginehouse-hops": patient.server_id,
        "authorization": "Bearer sk-1",
        "content-length": "2",
    }


async def test_what_the_client_is_told(patient: ProxyClient) -> None:
    script = answer(
        DOCUMENT,
        b"Set-Cookie: a=b",
        b"Server: x",
        b"Date: y",
        b"X-Request-Id: theirs",
        b"Access-Control-Allow-Origin: *",
        b"Keep-Alive: 5",
        b"X-RateLimit-Remaining: 3",
        b"OpenAI-Processing-MS: 5",
        b"Transfer-Encoding-Hint: chunked",
    )
    async with bad_upstream(script) as upstream:
        reply = await ask(patient, upstream)
        await read(reply)
    assert dict(reply.headers) == {
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(DOCUMENT),
        b"x-ratelimit-remaining": b"3",
        b"openai-processing-ms": b"5",
    }


# -- no answer --------------------------------------------------------------------------------------


async def test_nobody_listens(relay: ProxyClient) -> None:
    async with bad_upstream(answer()) as upstream:
        pass
    with pytest.raises(BackendFailed, match="cannot be reached"):
        await ask(relay, upstream)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (reset, "closed the connection"),
        (raw(), "closed the connection"),
        (raw(b"HTTP/1.1 200"), "closed the connection"),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "does not speak HTTP"),
        (raw(b"\x16\x03\x01\x00" * 64, close=False), "does not speak HTTP"),
        (raw(HEAD + b"cache-control: a\x01b\r\n\r\n"), "does not speak HTTP"),
        (raw(HEAD + b"cache-control: a\rset-cookie: b\r\n\r\n"), "does not speak HTTP"),
        (raw(HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n"), "does not speak HTTP"),
        (raw(HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"), "does not speak HTTP"),
        (flood_headers, "bytes of headers"),
        (raw(HEAD + b"x: " + b"a" * 2 * MAX_HEAD, close=False), "bytes of headers"),
        (raw(*[b"HTTP/1.1 100 Continue\r\nx: %s\r\n\r\n" % (b"a" * 1000)] * 200), "bytes of headers"),
        (raw(b"HTTP/1.1 101 Switch\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"), "switch protocols"),
        (hang, "sent nothing for 0.1 s"),
    ],
)
async def test_no_answer(relay: ProxyClient, script: object, reason: str) -> None:
    async with bad_upstream(script) as upstream:  # type: ignore[arg-type]
        with pytest.raises(BackendFailed, match=reason):
            await ask(relay, upstream)
        assert len(upstream.requests) == 1


async def test_a_time_out_on_a_connection_used_before_is_no_reason_to_ask_again(relay: ProxyClient) -> None:
    async with bad_upstream(answer(), hang) as upstream:
        await read(await ask(relay, upstream))
        with pytest.raises(BackendFailed, match="sent nothing"):
            await ask(relay, upstream)
        assert len(upstream.requests) == 2


async def test_a_connection_that_went_stale_is_replaced(relay: ProxyClient) -> None:
    async with bad_upstream(answer(), reset, answer()) as upstream:
        await read(await ask(relay, upstream))
        assert await read(await ask(relay, upstream)) == DOCUMENT
        assert [request.connection for request in upstream.requests] == [1, 1, 2]


async def test_a_cancelled_request_leaves_nothing(patient: ProxyClient) -> None:
    async with bad_upstream(hang) as upstream:
        asking = asyncio.create_task(ask(patient, upstream))
        while not upstream.requests:
            await asyncio.sleep(0.001)
        asking.cancel()
        await asyncio.wait_for(upstream.lost.wait(), 0.1)
        with pytest.raises(asyncio.CancelledError):
            await asking


# -- half an answer ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "got", "reason"),
    [
        (answer(b"{}", length=5), b"{}", "stopped"),
        (raw(HEAD + b"content-length: 5\r\n\r\n{}"), b"{}", "broke off"),
        (events(EVENTS[0], then=reset), EVENTS[0], "broke off"),
        (events(EVENTS[0], then=raw()), EVENTS[0], "broke off"),
        (events(EVENTS[0], then=raw(b"not hex\r\n")), EVENTS[0], "does not speak HTTP"),
        (events(EVENTS[0]), EVENTS[0], "without an end mark"),
        (events(then=hang), b"", "sent nothing for 0.1 s"),
        (events(EVENTS[0], then=hang), EVENTS[0], "stopped in the middle of its answer for 0.1 s"),
    ],
)
async def test_half_an_answer(relay: ProxyClient, script: object, got: bytes, reason: str) -> None:
    async with bad_upstream(script) as upstream:  # type: ignore[arg-type]
        meter = Meter()
        reply = await ask(relay, upstream, meter)
        assert reply.status == 200
        data, message = await read_until_failure(reply)
        assert data == got
        assert reason.replace("\\", "") in message
        assert meter.usage is None


async def test_what_comes_after_done_does_not_matter(relay: ProxyClient) -> None:
    async with bad_upstream(events(*EVENTS, then=reset)) as upstream:
        meter = Meter()
        reply = await ask(relay, upstream, meter)
        assert await read(reply) == b"".join(EVENTS)
        assert meter.usage == USAGE


async def test_a_second_answer_is_never_given_to_the_next_request(relay: ProxyClient) -> None:
    twice = (HEAD + b"content-length: 2\r\n\r\n{}") * 2
    async with bad_upstream(raw(twice, close=False), answer()) as upstream:
        assert await read(await ask(relay, upstream)) == b"{}"
        assert await read(await ask(relay, upstream)) == DOCUMENT
        assert [request.connection for request in upstream.requests] == [1, 2]


# -- closing ----------------------------------------------------------------------------------------


async def test_closing_ends_a_read_that_is_waiting(patient: ProxyClient) -> None:
    async with bad_upstream(events(EVENTS[0], then=hang)) as upstream:
        reply = await ask(patient, upstream)
        assert await anext(reply.body) == EVENTS[0]
        reading = asyncio.ensure_future(anext(reply.body, b"end"))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(reply.body.close)
        await asyncio.wait_for(upstream.lost.wait(), 0.1)
        assert await reading == b"end"
        reply.body.close()


async def test_closing_after_the_reader_was_cancelled(patient: ProxyClient) -> None:
    async with bad_upstream(events(EVENTS[0], then=hang)) as upstream:
        reply = await ask(patient, upstream)
        reading = asyncio.create_task(read(reply))
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert not upstream.lost.is_set()
        reply.body.close()
        await asyncio.wait_for(upstream.lost.wait(), 0.1)


async def test_closing_an_answer_nobody_read(patient: ProxyClient) -> None:
    async with bad_upstream(events(*EVENTS, then=hang)) as upstream:
        reply = await ask(patient, upstream)
        reply.body.close()
        assert await read(reply) == b""
        await asyncio.wait_for(upstream.lost.wait(), 0.1)


# -- back pressure ----------------------------------------------------------------------------------


async def test_a_reader_that_stands_still_stops_the_upstream(relay: ProxyClient) -> None:
    """50 MB, of which what the kernel does not hold stays there. The wait is no stall of the upstream."""
    sent: list[int] = []
    size, count = 50_000, 1000
    async with bad_upstream(flood_events(count, size, sent)) as upstream:
        reply = await ask(relay, upstream)
        await anext(reply.body)
        tracemalloc.start()
        await asyncio.sleep(0.25)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 1_000_000
        assert len(sent) < count / 2
        rest = await read(reply)
    assert rest.endswith(EVENTS[-1])
    assert len(sent) == count
    assert HIGH_WATER < 1_000_000


# -- probes -----------------------------------------------------------------------------------------


async def test_probes(relay: ProxyClient) -> None:
    async with bad_upstream(answer(b"{}")) as upstream:
        assert await relay.get(upstream.url + "/models", key="sk-1") == (200, b"{}")
        assert upstream.requests[0].line == "GET /v1/models HTTP/1.1"
        assert upstream.requests[0].headers["authorization"] == "Bearer sk-1"
        assert await read(await ask(relay, upstream)) == b"{}"
        assert upstream.connections == 1


async def test_a_fresh_probe_has_a_connection_of_its_own(relay: ProxyClient) -> None:
    async with bad_upstream(answer(b"{}")) as upstream:
        for fresh in (False, True, False):
            assert await relay.get(upstream.url + "/models", fresh=fresh) == (200, b"{}")
        assert [request.connection for request in upstream.requests] == [1, 2, 1]


async def test_what_was_too_late_is_told_apart(relay: ProxyClient) -> None:
    async with bad_upstream(hang, hang, events(EVENTS[0], then=hang)) as upstream:
        with pytest.raises(BackendTimedOut, match=r"gave no answer within 0\.05 s"):
            await relay.get(upstream.url + "/models", timeout=0.05)
        with pytest.raises(BackendTimedOut, match="sent nothing"):
            await ask(relay, upstream)
        with pytest.raises(BackendTimedOut, match="stopped in the middle"):
            await read(await ask(relay, upstream))


# -- redirects --------------------------------------------------------------------------------------

LOCATION = b"Location: https://elsewhere.test/v1?token=secret"


@pytest.mark.parametrize("status", [b"300 Choose", b"301 Moved", b"304 Same", b"307 There", b"308 There"])
async def test_a_redirect_is_the_upstreams_fault(relay: ProxyClient, status: bytes) -> None:
    async with bad_upstream(answer(b"", LOCATION, status=status)) as upstream:
        with pytest.raises(BackendFailed) as failure:
            await ask(relay, upstream)
        assert (
            f"redirect to https://elsewhere.test/v1 (status {status[:3].decode()})" in failure.value.message
        )
        with pytest.raises(BackendFailed, match="redirect"):
            await relay.get(upstream.url + "/models")
        assert len(upstream.requests) == 2


async def test_a_redirect_to_nowhere(relay: ProxyClient) -> None:
    async with bad_upstream(raw(b"HTTP/1.1 302 \r\nlocation: \xff\r\n\r\n")) as upstream:
        with pytest.raises(BackendFailed, match="redirect"):
            await ask(relay, upstream)


# -- encodings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        (b"gzip, deflate, br", b"identity"),
        (b"gzip;q=1.0, identity;q=0.5", b"identity"),
        (b"*", b"identity"),
        (b"gzip;q=0", b"identity"),
        (b"identity, *;q=0", b"identity"),
        (b"identity;q=0.001", b"identity"),
        (b"identity;q=0\r\nx: y", b"identity"),
        (b"gzip, identity;q=0", b"gzip, identity;q=0"),
        (b"br, *; q=0.000", b"br, *; q=0.000"),
    ],
)
async def test_the_encoding_that_is_asked_for(patient: ProxyClient, wanted: bytes, asked: bytes) -> None:
    async with bad_upstream(answer()) as upstream:
        headers = [(b"accept-encoding", wanted)]
        await read(await ask(patient, upstream, headers=headers))
        await read(await ask_worker(patient, upstream, headers=headers))
        await patient.get(upstream.url + "/models", headers)
        sent = [request.headers["accept-encoding"] for request in upstream.requests]
    assert sent == [asked.decode(), "identity", "identity"]


@pytest.mark.parametrize(
    "script", [hang, flood_headers, flood_events(500, 50_000, []), events(EVENTS[0], then=hang)]
)
async def test_probes_are_bounded(relay: ProxyClient, script: object) -> None:
    async with bad_upstream(script) as upstream:  # type: ignore[arg-type]
        with pytest.raises(BackendFailed):
            await relay.get(upstream.url + "/models", timeout=0.3)
        await asyncio.wait_for(upstream.lost.wait(), 0.1)
