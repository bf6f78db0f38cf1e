from __future__ import annotations

import pytest

from app.middleware.credentials import client_network, is_local


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:DB8:0:1::5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::1", "2001:db8:0:1::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("x" * 60_000, "unknown"),
        ("10.0.0.7\nlevel=ERROR", "unknown"),
        ("", "unknown"),
    ],
)
def test_what_limits_count_by(address: str, network: str) -> None:
    assert client_network({"type": "http", "client": (address, 1)}) == network


def test_who_has_no_address() -> None:
    assert client_network({"type": "http", "client": None}) == "unknown"


@pytest.mark.parametrize(
    ("address", "headers", "local"),
    [
        ("127.0.0.1", {}, True),
        ("127.9.9.9", {"host": "localhost:8000"}, True),
        ("::1", {"host": "[::1]:8000"}, True),
        ("::ffff:127.0.0.1", {"host": "127.0.0.1"}, True),
        ("127.0.0.1", {"host": "mymachine:8000"}, True),
        ("127.0.0.1", {"host": "app.localhost"}, True),
        ("127.0.0.1", {"host": "192.168.1.2:8000"}, True),
        ("10.0.0.7", {"host": "localhost"}, False),
        ("172.17.0.1", {}, False),
        ("", {}, False),
        (None, {}, False),
        ("localhost.evil.example", {}, False),
        # A page whose name was made to lead here, in a browser on this machine.
        ("127.0.0.1", {"host": "evil.example:8000"}, False),
        ("127.0.0.1", {"host": "evil.example."}, False),
        ("127.0.0.1", {"host": ""}, False),
        # A proxy on this machine, whether its word counts or not.
        ("127.0.0.1", {"x-forwarded-for": "10.0.0.7"}, False),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, False),
        ("127.0.0.1", {"forwarded": "for=10.0.0.7"}, False),
        ("127.0.0.1", {"via": "1.1 proxy"}, False),
    ],
)
def test_who_is_on_this_machine(address: str | None, headers: dict[str, str], local: bool) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    client = None if address is None else (address, 1)
    assert is_local({"type": "http", "client": client, "headers": raw}) is local
