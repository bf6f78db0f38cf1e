"""Fetching from URLs: whom it asks, what it takes, and where it ends. On real sockets, with TLS."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from app.media import fetching
from app.media.fetching import MediaFetcher
from engines.errors import RequestError
from support.bad_upstream import CERTIFICATES, BadUpstream, Script, answer, bad_upstream, flood, hang, raw
from support.forward_proxy import forward_proxy
from support.pictures import picture

PICTURE = picture()
# Where the test's server is. The name in its certificate is upstream.test's.
HERE = "https,127.0.0.1/32"
LARGE = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"


class Names:
    """A resolver whose every name has ``addresses``, which change with each look-up."""

    def __init__(self, *addresses: tuple[str, ...]) -> None:
        self.addresses = list(addresses)
        self.asked: list[str] = []

    def __call__(self, host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        self.asked.append(str(host))
        found = self.addresses[min(len(self.asked), len(self.addresses)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Names]:
    def use(*addresses: tuple[str, ...]) -> Names:
        resolver = Names(*addresses)
        monkeypatch.setattr(socket, "getaddrinfo", resolver)
        return resolver

    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "ca.pem"))
    return use


async def fetch(url: str, sources: str = HERE, **options: Any) -> bytes:
    fetcher = MediaFetcher(sources, **options)
    try:
        return await fetcher.fetch(url, "where", lambda size: None)
    finally:
        fetcher.close()


async def refusal(url: str, sources: str = HERE, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        await fetch(url, sources, **options)
    assert caught.value.param == "where"
    return caught.value.message


@pytest.fixture
async def server() -> AsyncIterator[BadUpstream]:
    async with bad_upstream(answer(PICTURE, type=b"text/plain"), tls=True) as server:
        yield server


async def test_a_name_is_looked_up_once(server: BadUpstream, names: Callable[..., Names]) -> None:
    """And the connection goes to what it was then: whoever answers otherwise the next time wins nothing."""
    resolver = names(("127.0.0.1",), ("127.0.0.2",))
    assert await fetch(f"https://upstream.test:{server.port}/a%20b.png?x=1#y") == PICTURE
    assert resolver.asked == ["upstream.test"]
    request = server.requests[0]
    assert request.line == "GET /a%20b.png?x=1 HTTP/1.1"
    assert request.headers["host"] == f"upstream.test:{server.port}"
    assert not {"authorization", "cookie", "x-request-id"} & request.headers.keys()


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.2", "169.254.169.254", "::ffff:127.0.0.2", "::1"])
async def test_a_name_of_the_inside(names: Callable[..., Names], address: str) -> None:
    names((address,))
    told = await refusal("https://inside.test/a.png")
    assert "nothing is fetched from inside.test" in told
    assert address not in told


async def test_only_the_address_that_was_checked(server: BadUpstream, names: Callable[..., Names]) -> None:
    """Of several addresses those that are not allowed are left out."""
    names(("10.0.0.1", "127.0.0.1"))
    assert await fetch(f"https://upstream.test:{server.port}/") == PICTURE


async def test_a_certificate_of_another_name(server: BadUpstream, names: Callable[..., Names]) -> None:
    names(("127.0.0.1",))
    told = await refusal(f"https://other.test:{server.port}/")
    assert "the certificate of other.test" in told
    assert "127.0.0.1" not in told


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (answer(b"", b"location: http://127.0.0.1/", status=b"302 Found"), "is a redirect"),
        (answer(b"no", status=b"404 Not Found"), "status 404"),
        (answer(PICTURE, b"content-encoding: gzip"), "encoded file"),
        (raw(LARGE, b"x"), "more than 20,971,520 bytes"),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nx"), "broke off"),
        (raw(b"SSH-2.0-OpenSSH\r\n"), "does not speak HTTP"),
        (flood(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 100_000), "more than 300,000 bytes"),
        (hang, "within 0.2 s"),
    ],
)
async def test_answers_of_no_use(
    names: Callable[..., Names], monkeypatch: pytest.MonkeyPatch, script: Script, told: str
) -> None:
    names(("127.0.0.1",))
    if "300,000" in told:
        monkeypatch.setattr(fetching, "MOST_BYTES", 300_000)
    async with bad_upstream(script, tls=True) as server:
        assert told in await refusal(
            f"https://upstream.test:{server.port}/", seconds=0.2 if script is hang else 5
        )


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://a.test/x",
        "a.png",
        "",
        "https://",
        "https://u:p@a.test/x",
        "https://[::1/x",
    ],
)
async def test_what_is_no_url(url: str) -> None:
    assert "is no address to fetch from" in await refusal(url)


async def test_nothing_is_fetched_where_that_is_said() -> None:
    assert "this server fetches nothing from URLs" in await refusal("https://a.test/x", "none")


async def test_a_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "its name has no address" in await refusal("https://nowhere.test/x")


async def test_a_forward_proxy_is_sent_to_the_checked_address(
    server: BadUpstream, names: Callable[..., Names]
) -> None:
    resolver = names(("127.0.0.1",), ("127.0.0.2",))
    async with forward_proxy(server.port) as proxy:
        url = f"https://upstream.test:{server.port}/a"
        assert await fetch(url, proxies={"https": proxy.url}) == PICTURE
        assert proxy.heads[0].startswith(b"CONNECT 127.0.0.1:%d " % server.port)
    assert resolver.asked.count("upstream.test") == 1
