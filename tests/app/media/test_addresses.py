"""What MEDIA_URLS lets through: by address, in every way to write one, and by name."""

from __future__ import annotations

import pytest

from app.media.addresses import MediaGuard, parse_sources
from balancer.proxy.guard import NotAllowed
from balancer.proxy.route import origin_of

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[fe80::1]",
    "[fe80::1%eth0]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::1]",
    "[2002:7f00:1::1]",
    "[2002:a00:1::1]",
    "[2001:db8::1]",
    "[2001::1]",
]


@pytest.mark.parametrize("host", PRIVATE)
def test_what_is_not_public(host: str) -> None:
    for sources in ("https", "https,http", "https,gpu1,8.8.8.0/24", "gpu1"):
        with pytest.raises(NotAllowed):
            MediaGuard(sources).check(origin_of(f"https://{host}/a.png"))


@pytest.mark.parametrize(
    ("sources", "url", "is_allowed"),
    [
        ("https", "https://8.8.8.8/a", True),
        ("https", "https://[2606:4700::1111]/a", True),
        ("https", "https://[64:ff9b::808:808]/a", True),
        ("https", "https://a.test/a", True),
        ("https", "http://8.8.8.8/a", False),
        ("https", "http://a.test/a", False),
        ("https, HTTP", "http://8.8.8.8/a", True),
        ("none", "https://8.8.8.8/a", False),
        ("none", "https://a.test/a", False),
        ("a.test", "https://a.test/a", True),
        ("a.test", "http://a.test/a", True),
        ("a.test", "https://b.test/a", False),
        ("a.test", "https://8.8.8.8/a", False),
        ("10.0.0.0/8", "https://10.1.2.3/a", True),
        ("10.0.0.0/8", "http://10.1.2.3/a", True),
        ("10.0.0.0/8", "https://[::ffff:10.1.2.3]/a", True),
        ("https,127.0.0.1", "https://127.0.0.2/a", False),
        ("https,169.254.0.0/16", "https://169.254.169.254/a", True),
    ],
)
def test_what_a_setting_allows(sources: str, url: str, is_allowed: bool) -> None:
    if is_allowed:
        MediaGuard(sources).check(origin_of(url))
    else:
        with pytest.raises(NotAllowed):
            MediaGuard(sources).check(origin_of(url))


@pytest.mark.parametrize("sources", ["*", "https,*", "no such host", "none,https x"])
def test_a_setting_that_means_nothing(sources: str) -> None:
    with pytest.raises(ValueError, match=r"is no host|would let clients"):
        parse_sources(sources)
