"""What a client is told of an upstream's headers."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from balancer.proxy.client import ProxyClient
from balancer.proxy.headers import MOST_WAIT, for_client
from support.bad_upstream import DOCUMENT, EVENTS, answer, ask, bad_upstream, events, raw, read


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"0", b"0"),
        (b"7", b"7"),
        (b" 7 ", b"7"),
        (b"1.2", b"2"),
        (b"3600", b"3600"),
        (b"3601", b"3600"),
        (b"1" + b"0" * 400, b"3600"),
        (b"9" * 60_000, b"3600"),
        (b"-1", None),
        (b"NaN", None),
        (b"inf", None),
        (b"1e9", None),
        (b"", None),
        (b"soon", None),
        (b"7, 8", None),
        (b"\xb2", None),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", b"0"),
        (b"Fri, 31 Dec 9999 23:59:59 GMT", b"3600"),
        (b"Fri, 31 Dec 9999 23:59:59 -9900", None),
        (b"Mon, 01 Jan 0001 00:00:00 +2359", b"0"),
        (b"Mon, 99 Jan 2026 00:00:00 GMT", None),
        (b"Mon, 01 Jan 99999 00:00:00 GMT", None),
        (b"Mon, " * 10_000, None),
    ],
)
def test_how_long_a_client_is_told_to_wait(value: bytes, told: bytes | None) -> None:
    assert dict(for_client([(b"retry-after", value)])).get(b"retry-after") == told


def test_the_other_ways_to_say_it() -> None:
    soon = formatdate(time.time() + 30, usegmt=True).encode()
    assert 28 <= int(dict(for_client([(b"retry-after", soon)]))[b"retry-after"]) <= 30
    for value, told in [(b"1500", b"1500"), (b"1" + b"0" * 400, b"%d" % (MOST_WAIT * 1000)), (b"-1", None)]:
        assert dict(for_client([(b"retry-after-ms", value)])).get(b"retry-after-ms") == told


@pytest.mark.parametrize(
    "name",
    [
        "connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer", "upgrade",
        "transfer-encoding", "set-cookie", "set-cookie2", "server", "date", "via", "x-powered-by", "alt-svc",
        "access-control-allow-origin", "access-control-allow-credentials", "strict-transport-security",
        "content-security-policy", "www-authenticate", "location", "refresh", "clear-site-data", "link",
        "x-request-id", "x-enginehouse-backend", "x-enginehouse-hops", "x-enginehouse-parent",
    ],
)  # fmt: skip
def test_what_stays_behind(name: str) -> None:
    assert for_client([(name.encode(), b"x")]) == []


@pytest.mark.parametrize(
    ("type_", "is_data"),
    [
        (b"application/json", True),
        (b"Application/JSON; charset=utf-8", True),
        (b"application/problem+json", True),
        (b"text/event-stream;charset=utf-8", True),
        (b"text/plain", True),
        (b"application/x-ndjson", True),
        (b"text/html", False),
        (b"text/html; application/json", False),
        (b"image/svg+xml", False),
        (b"application/jsonx", False),
        (b"", False),
    ],
)
def test_pages_go_as_plain_text(type_: bytes, is_data: bool) -> None:
    told = dict(for_client([(b"content-type", type_)]))
    assert told[b"content-type"] == (type_ if is_data else b"text/plain; charset=utf-8")


async def test_an_event_stream_has_no_length(patient: ProxyClient) -> None:
    """It may get an event more than its upstream meant it to have, if it breaks off."""
    stream = b"".join(EVENTS)
    async with bad_upstream(answer(stream, type=b"Text/Event-Stream; charset=utf-8"), answer()) as upstream:
        reply = await ask(patient, upstream)
        assert await read(reply) == stream
        assert b"content-length" not in dict(reply.headers)
        reply = await ask(patient, upstream)
        assert await read(reply) == DOCUMENT
        assert b"content-length" in dict(reply.headers)


async def test_a_body_longer_than_announced(patient: ProxyClient) -> None:
    """What is too much goes nowhere: neither to the client nor before the next answer."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
    async with bad_upstream(raw(head + b"{}{}{}", close=False), answer(), events(*EVENTS)) as upstream:
        assert await read(await ask(patient, upstream)) == b"{}"
        assert await read(await ask(patient, upstream)) == DOCUMENT
        assert [request.connection for request in upstream.requests] == [1, 2]
