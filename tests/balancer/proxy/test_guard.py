"""The addresses that upstreams may have: by URL, by what a name resolves to, and with every connection."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from balancer.errors import BackendFailed
from balancer.proxy.client import ProxyClient
from balancer.proxy.guard import Guard, NotAllowed, parse_allowed
from balancer.proxy.route import origin_of
from support.bad_upstream import answer, bad_upstream


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name lead to these addresses."""

    async def look_up(host: str, port: int, **options: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.0.1",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "2852039166",
        "0xa9.254.169.254",
        "0251.0376.0251.0376",
        "169.254.43518",
        "100.100.100.200",
        "168.63.129.16",
        "[fd00:ec2::254]",
    ],
)
def test_link_local_and_metadata_addresses(host: str) -> None:
    origin = origin_of(f"http://{host.replace('%25', '%')}/v1")
    for guard in (Guard(), Guard("*"), Guard("10.0.0.0/8, gpu1")):
        with pytest.raises(NotAllowed, match="is not allowed as an upstream: ALLOWED_UPSTREAMS says"):
            guard.check(origin)
    Guard("0.0.0.0/0, ::/0").check(origin)


@pytest.mark.parametrize("host", ["gpu1", "10.0.0.1", "127.0.0.1", "[::1]", "8.8.8.8", "1.gpu.test"])
def test_anything_else_is_allowed_without_a_list(host: str) -> None:
    Guard().check(origin_of(f"https://{host}:8000/v1"))


@pytest.mark.parametrize(
    ("allowed", "url", "is_allowed"),
    [
        ("gpu1", "http://gpu1/v1", True),
        ("gpu1", "http://GPU1:8000/v1", True),
        ("GPU1", "http://gpu1/v1", True),
        ("gpu1", "http://gpu2/v1", False),
        ("gpu1:8000", "http://gpu1:8000/v1", True),
        ("gpu1:8000", "http://gpu1/v1", False),
        ("*.internal", "https://a.b.internal/v1", True),
        (".internal", "https://a.internal/v1", True),
        ("*.internal", "https://internal.test/v1", False),
        ("*.internal", "https://xinternal/v1", False),
        ("10.0.0.0/8", "http://10.1.2.3/v1", True),
        ("10.0.0.0/8", "http://11.1.2.3/v1", False),
        ("10.1.2.3", "http://10.1.2.3:9/v1", True),
        ("10.1.2.3:9", "http://10.1.2.3:9/v1", True),
        ("10.1.2.3:9", "http://10.1.2.3:8/v1", False),
        ("3", "http://10.1.2.3/v1", False),
        ("fd00::/8", "http://[fd00::1]/v1", True),
        ("fd00::/8", "http://[fe00::1]/v1", False),
        ("10.0.0.0/8", "http://[::ffff:10.0.0.1]/v1", True),
        ("*", "http://10.1.2.3/v1", True),
    ],
)
def test_a_list_is_all_that_is_allowed(allowed: str, url: str, is_allowed: bool) -> None:
    if is_allowed:
        Guard(allowed).check(origin_of(url))
        return
    with pytest.raises(NotAllowed):
        Guard(allowed).check(origin_of(url))


@pytest.mark.parametrize(
    ("allowed", "addresses", "found"),
    [
        ("", ["10.0.0.1", "10.0.0.2"], ["10.0.0.1", "10.0.0.2"]),
        ("", ["169.254.169.254", "10.0.0.2"], ["10.0.0.2"]),
        ("", ["169.254.169.254", "fe80::1"], None),
        ("", ["::ffff:169.254.169.254"], None),
        ("gpu1", ["10.0.0.1"], ["10.0.0.1"]),
        ("gpu1", ["169.254.169.254"], None),
        ("10.0.0.0/8", ["10.0.0.1", "11.0.0.1"], ["10.0.0.1"]),
        ("10.0.0.0/8", ["127.0.0.1"], None),
        ("gpu2, 10.0.0.0/8", ["127.0.0.1"], None),
        ("169.254.169.254/32", ["169.254.169.254"], ["169.254.169.254"]),
    ],
)
async def test_what_a_name_leads_to(
    monkeypatch: pytest.MonkeyPatch, allowed: str, addresses: list[str], found: list[str] | None
) -> None:
    resolve(monkeypatch, *addresses)
    origin = origin_of("http://gpu1:8000/v1")
    if found is not None:
        assert await Guard(allowed).addresses(origin) == found
        return
    with pytest.raises(NotAllowed, match="gpu1:8000"):
        await Guard(allowed).addresses(origin)


@pytest.mark.parametrize("text", ["a b", "http://gpu1", "10.0.0.0/99", "gpu1/8", "a..b", "**.x", "gpu1:port"])
def test_what_is_no_entry(text: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        parse_allowed(f"gpu1, {text}")


def test_entries() -> None:
    assert parse_allowed(" , ") == ()
    assert parse_allowed("GPU1, *.x.y:80,10.0.0.0/8, ::1, [::1]:80,*") == (
        "gpu1", "*.x.y:80", "10.0.0.0/8", "::1", "[::1]:80", "*",
    )  # fmt: skip


# -- connecting -------------------------------------------------------------------------------------


async def test_a_name_that_leads_elsewhere_later(
    patient: ProxyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: it was good when the upstream was added. Nothing is sent to where it leads now."""
    async with bad_upstream(answer(b"{}")) as upstream:
        url, guard = f"http://gpu1.test:{upstream.port}/v1/models", Guard("10.0.0.0/8")
        resolve(monkeypatch, "127.0.0.1")
        with pytest.raises(NotAllowed, match=r"gpu1\.test:\d+ \(127\.0\.0\.1\) is not allowed"):
            await patient.get(url, guard=guard)
        assert upstream.connections == 0
        assert await patient.get(url, guard=Guard("127.0.0.1")) == (200, b"{}")
        assert upstream.requests[0].headers["host"] == f"gpu1.test:{upstream.port}"


async def test_the_next_address_is_tried(patient: ProxyClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the first two."""
    async with bad_upstream(answer(b"{}")) as upstream:
        url = f"http://gpu1.test:{upstream.port}/v1/models"
        resolve(monkeypatch, "127.0.0.2", "127.0.0.3", "127.0.0.1")
        assert await patient.get(url, guard=Guard()) == (200, b"{}")
        resolve(monkeypatch, "127.0.0.2", "127.0.0.3")
        with pytest.raises(BackendFailed, match="cannot be reached"):
            await patient.get(url, fresh=True, guard=Guard())


async def test_behind_a_proxy_the_url_counts() -> None:
    """What the name leads to is only known there."""
    relay = ProxyClient(proxies={"http": "http://127.0.0.1:9"}, connect_timeout=1.0)
    with pytest.raises(NotAllowed):
        await relay.get("http://169.254.169.254/v1", guard=Guard())
    with pytest.raises(NotAllowed):
        await relay.get("http://gpu2.test/v1", guard=Guard("gpu1.test"))
    with pytest.raises(BackendFailed, match="cannot be reached"):
        await relay.get("http://gpu2.test/v1", guard=Guard())
    await relay.close()
