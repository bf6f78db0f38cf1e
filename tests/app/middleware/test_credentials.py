from __future__ import annotations

import pytest

from app.middleware.credentials import client_network


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
