"""TLS and forward proxies, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from balancer.errors import BackendFailed, BackendTimedOut
from balancer.proxy.client import ProxyClient
from support.bad_upstream import (
    CERTIFICATES,
    DOCUMENT,
    EVENTS,
    answer,
    ask,
    bad_upstream,
    events,
    hang,
    read,
    read_until_failure,
    reset,
)
from support.forward_proxy import ForwardProxyStub, forward_proxy

AUTHORIZATION = b"\r\nproxy-authorization: Basic dTpw\r\n"


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "ca.pem"))


def through(proxy: ForwardProxyStub) -> ProxyClient:
    """A client behind ``proxy``, with credentials."""
    url = proxy.url.replace("//", "//u:p@")
    return ProxyClient(
        first_byte_timeout=0.2,
        stall_timeout=0.2,
        connect_timeout=0.5,
        proxies={"http": url, "https": url, "no": ""},
    )


@pytest.fixture
async def proxy() -> AsyncIterator[ForwardProxyStub]:
    """A forward proxy that leads nowhere yet."""
    async with forward_proxy(0) as stub:
        yield stub


# -- TLS --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("trusted")
async def test_an_authority_of_ones_own(patient: ProxyClient) -> None:
    async with bad_upstream(answer(), events(*EVENTS), answer(), tls=True) as upstream:
        assert await read(await ask(patient, upstream)) == DOCUMENT
        assert await read(await ask(patient, upstream)) == b"".join(EVENTS)
        assert await patient.get(upstream.url + "/models") == (200, DOCUMENT)
        assert upstream.connections == 1


async def test_an_authority_that_nobody_knows(patient: ProxyClient) -> None:
    async with bad_upstream(answer(), tls=True) as upstream:
        with pytest.raises(
            BackendFailed, match=r"the certificate of localhost:\d+ is not trusted: .*certificate"
        ):
            await ask(patient, upstream)
        assert not upstream.requests


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_of_another_host(patient: ProxyClient) -> None:
    async with bad_upstream(answer(), tls=True) as upstream:
        upstream.url = upstream.url.replace("localhost", "127.0.0.1")
        with pytest.raises(BackendFailed, match=r"is not trusted: .*not valid for '127\.0\.0\.1'"):
            await ask(patient, upstream)
        assert not upstream.requests


async def test_a_server_without_tls(relay: ProxyClient) -> None:
    async with bad_upstream(hang) as upstream:
        upstream.url = upstream.url.replace("http://", "https://")
        with pytest.raises(BackendFailed, match=r"cannot be reached|took no connection"):
            await ask(relay, upstream)


@pytest.mark.usefixtures("trusted")
async def test_a_stream_over_tls_that_breaks(relay: ProxyClient) -> None:
    async with bad_upstream(events(EVENTS[0], then=reset), hang, tls=True) as upstream:
        data, _ = await read_until_failure(await ask(relay, upstream))
        assert data == EVENTS[0]
        with pytest.raises(BackendTimedOut, match="sent nothing"):
            await ask(relay, upstream)


# -- forward proxies --------------------------------------------------------------------------------


@pytest.mark.usefixtures("trusted")
async def test_a_tunnel(proxy: ForwardProxyStub) -> None:
    client = through(proxy)
    async with bad_upstream(answer(), events(*EVENTS), answer(), tls=True) as upstream:
        proxy.port = upstream.port
        upstream.url = "https://upstream.test/v1"
        assert await read(await ask(client, upstream, key="sk-1")) == DOCUMENT
        assert await read(await ask(client, upstream, key="sk-1")) == b"".join(EVENTS)
        await client.get(upstream.url + "/models", fresh=True)
        assert upstream.connections == 2
        first = upstream.requests[0]
    assert (
        proxy.heads
        == [b"CONNECT upstream.test:443 HTTP/1.1\r\nhost: upstream.test:443" + AUTHORIZATION + b"\r\n"] * 2
    )
    assert (first.line, first.headers["host"]) == ("POST /v1/chat/completions HTTP/1.1", "upstream.test")
    assert "proxy-authorization" not in first.headers
    await client.close()


async def test_a_tunnel_to_a_server_that_is_not_trusted(proxy: ForwardProxyStub) -> None:
    client = through(proxy)
    async with bad_upstream(answer(), tls=True) as upstream:
        proxy.port = upstream.port
        upstream.url = "https://upstream.test/v1"
        with pytest.raises(BackendFailed, match=r"certificate of upstream\.test:443 \(by the proxy"):
            await ask(client, upstream)
        assert not upstream.requests
    await client.close()


async def test_a_plain_request_through_a_proxy(proxy: ForwardProxyStub) -> None:
    client = through(proxy)
    async with bad_upstream(answer(), events(*EVENTS)) as upstream:
        proxy.port = upstream.port
        upstream.url = "http://upstream.test:8000/v1"
        assert await read(await ask(client, upstream, key="sk-1")) == DOCUMENT
        assert await read(await ask(client, upstream, key="sk-1")) == b"".join(EVENTS)
        first = upstream.requests[0]
    assert len(proxy.heads) == 1
    assert AUTHORIZATION in proxy.heads[0]
    assert first.line == "POST http://upstream.test:8000/v1/chat/completions HTTP/1.1"
    assert first.headers["host"] == "upstream.test:8000"
    await client.close()


async def test_workers_are_asked_directly(proxy: ForwardProxyStub) -> None:
    client = through(proxy)
    async with bad_upstream(answer()) as upstream:
        assert await read(await ask(client, upstream)) == DOCUMENT
        assert "proxy-authorization" not in upstream.requests[0].headers
    assert proxy.heads == []
    await client.close()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "refuses a tunnel to upstream.test:443: 407 Pro",
        ),
        (b"HTTP/1.1 403\r\n\r\n", "refuses a tunnel to upstream.test:443: 403"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{}", "sent more than its answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000, "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "took no connection within 0.5 s"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "took no connection within 0.5 s"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel(proxy: ForwardProxyStub, said: bytes, reason: str) -> None:
    proxy.answer = said
    client = through(proxy)
    with pytest.raises(BackendFailed) as failure:
        await client.get("https://upstream.test/v1/models")
    assert reason in failure.value.message
    assert "dTpw" not in failure.value.message
    await client.close()


async def test_a_proxy_that_is_away(relay: ProxyClient) -> None:
    async with forward_proxy(0) as stub:
        client = through(stub)
    for url in ("https://upstream.test/v1/models", "http://upstream.test/v1/models"):
        with pytest.raises(BackendFailed, match=r"upstream\.test:\d+ \(by the proxy .*\) cannot be reached"):
            await client.get(url)
    await client.close()


async def test_giving_up_leaves_no_connection(proxy: ForwardProxyStub) -> None:
    """Cancelled while the proxy keeps its answer back."""
    proxy.answer = b"HTTP/1.1 "
    client = through(proxy)
    asking = asyncio.create_task(client.get("https://upstream.test/v1/models"))
    while not proxy.heads:
        await asyncio.sleep(0.001)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(proxy.lost.wait(), 1)
    await client.close()


@pytest.mark.usefixtures("trusted")
def test_it_is_the_same_under_uvloop() -> None:
    """Which is what servers run under."""
    uvloop = pytest.importorskip("uvloop")

    async def live() -> None:
        async with (
            bad_upstream(events(*EVENTS), events(EVENTS[0], then=reset), hang, tls=True) as upstream,
            forward_proxy(upstream.port) as stub,
        ):
            for client, url in (
                (ProxyClient(first_byte_timeout=0.2, stall_timeout=0.2), upstream.url),
                (through(stub), "https://upstream.test/v1"),
            ):
                upstream.url = url
                upstream.scripts = [events(*EVENTS), events(EVENTS[0], then=reset), hang]
                assert await read(await ask(client, upstream)) == b"".join(EVENTS)
                data, _ = await read_until_failure(await ask(client, upstream))
                assert data == EVENTS[0]
                with pytest.raises(BackendTimedOut):
                    await ask(client, upstream)
                await client.close()
            stub.answer = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
            with pytest.raises(BackendFailed, match="502 Bad Gateway"):
                await through(stub).get("https://upstream.test/v1")
            with pytest.raises(BackendFailed, match="is not trusted"):
                await ProxyClient().get(f"https://127.0.0.1:{upstream.port}")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live())
