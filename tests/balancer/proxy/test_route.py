"""Which requests go through a forward proxy, and how they are told to it."""

from __future__ import annotations

import pytest

from balancer.errors import BackendFailed
from balancer.proxy.route import ForwardProxy, Origin, Route, Routes, forward_proxy

PROXIES = {"http": "http://plain:3128", "https": "http://secure:3129"}


def test_without_proxies() -> None:
    assert Routes().to("http://gpu1:8000/v1/models?x=y") == Route(
        Origin("gpu1", 8000, False), b"gpu1:8000", b"/v1/models?x=y"
    )
    assert Routes().to("https://[::1]") == Route(Origin("::1", 443, True), b"[::1]", b"/")
    assert str(Origin("::1", 443, True)) == "[::1]:443"


def test_a_plain_request_names_its_whole_url() -> None:
    assert Routes(PROXIES).to("http://gpu1:8000/v1/models?x=y") == Route(
        Origin("gpu1", 8000, False),
        b"gpu1:8000",
        b"http://gpu1:8000/v1/models?x=y",
        ForwardProxy("plain", 3128),
    )


def test_a_tunnel_hides_the_url() -> None:
    route = Routes(PROXIES).to("https://api.test/v1/models")
    assert (route.target, route.proxy) == (b"/v1/models", ForwardProxy("secure", 3129))


def test_each_scheme_has_its_own() -> None:
    assert Routes({"https": "http://p:1"}).to("http://gpu1/v1").proxy is None
    assert Routes({"http": "http://p:1"}).to("https://gpu1/v1").proxy is None
    assert Routes({"http": ""}).to("http://gpu1/v1").proxy is None


@pytest.mark.parametrize("host", ["127.0.0.1:8001", "127.1.2.3", "localhost:8000", "[::1]:8000"])
def test_loopback_is_never_behind_a_proxy(host: str) -> None:
    for scheme in ("http", "https"):
        assert Routes(PROXIES).to(f"{scheme}://{host}/v1").proxy is None


@pytest.mark.parametrize(
    ("no_proxy", "host", "is_direct"),
    [
        ("*", "gpu1", True),
        ("", "gpu1", False),
        ("gpu1", "gpu1:8000", True),
        ("other, GPU1", "gpu1", True),
        ("other gpu1", "gpu1", True),
        ("gpu1", "gpu10", False),
        ("gpu1", "x-gpu1", False),
        ("lan", "gpu1.lan", True),
        (".lan", "gpu1.lan", True),
        ("*.lan", "gpu1.lan", True),
        ("lan", "gpu1.wlan", False),
        ("gpu1:8000", "gpu1:8000", True),
        ("gpu1:8000", "gpu1:8001", False),
        ("10.1.2.3", "10.1.2.3:8000", True),
        ("10.1.2.3:8000", "10.1.2.3:8000", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("fd00::/8", "[fd00::1]:8000", True),
        ("[fd00::1]", "[fd00::1]:8000", True),
        ("10.0.0.0/99,nonsense/,,", "10.1.2.3", False),
    ],
)
def test_exceptions(no_proxy: str, host: str, is_direct: bool) -> None:
    route = Routes({**PROXIES, "no": no_proxy}).to(f"http://{host}/v1")
    assert (route.proxy is None) is is_direct
    assert route.target.startswith(b"/" if is_direct else b"http://")


def test_the_address_of_a_proxy() -> None:
    assert forward_proxy("squid.lan:3128") == ForwardProxy("squid.lan", 3128)
    assert forward_proxy("http://squid.lan") == ForwardProxy("squid.lan", 80)
    proxy = forward_proxy("http://user:p%40ss%3A@squid.lan:3128/")
    assert proxy == ForwardProxy("squid.lan", 3128, b"Basic dXNlcjpwQHNzOg==")
    assert "Basic" not in repr(proxy)
    assert str(proxy) == "squid.lan:3128"


@pytest.mark.parametrize(
    "url", ["socks5://u:secret@p:1080", "https://u:secret@p", "http://u:secret@", "p:99999"]
)
def test_a_proxy_that_cannot_be_used(url: str) -> None:
    with pytest.raises(BackendFailed, match="only http://host:port is supported") as failure:
        Routes({"https": url}).to("https://api.test/v1")
    assert "secret" not in failure.value.message
    assert Routes({"https": url, "no": "api.test"}).to("https://api.test/v1").proxy is None
