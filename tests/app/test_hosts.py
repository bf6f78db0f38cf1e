from __future__ import annotations

import pytest

from app.hosts import host_of, is_loopback, is_named, is_same_origin, parse_host, parse_origin


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8000", "localhost"),
        ("localhost.:8000", "localhost"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[::1]:8000", "::1"),
        ("a.b", "a.b"),
        ("", None),
        (":80", None),
        ("a:b", None),
        ("::1", None),
        ("a@b", None),
        ("a/b", None),
        ("a b", None),
        ("localhost, evil", None),
        ("[evil]", None),
        ("localhost:123456", None),
    ],
)
def test_the_host_of_an_authority(authority: str, host: str | None) -> None:
    assert host_of(authority) == host


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.8.9.10", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"]
)
def test_names_of_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "127.1", "localhost.evil", "127.0.0.1.evil", "10.0.0.1", "fe80::1"]
)
def test_other_names(host: str) -> None:
    assert not is_loopback(host)


def test_patterns() -> None:
    assert is_named("a.example.com", {"*.example.com"})
    assert not is_named("example.com", {"*.example.com"})
    assert not is_named("evilexample.com", {"*.example.com", "example.com"})
    assert is_named("whatever", {"*"})


@pytest.mark.parametrize(
    ("origin", "authority", "same"),
    [
        ("http://a:8000", "a:8000", True),
        ("HTTP://A:8000", "a:8000", True),
        ("https://a", "a", True),
        ("https://a", "a:443", True),
        ("http://a", "a:80", True),
        ("http://a:3000", "a:8000", False),
        ("http://b", "a", False),
        ("null", "null", False),
        ("", "", False),
    ],
)
def test_whose_page_it_is(origin: str, authority: str, same: bool) -> None:
    assert is_same_origin(origin, authority) is same


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("LLM.example.com", "llm.example.com"),
        ("*.example.com", "*.example.com"),
        ("*", "*"),
        ("[FD00::0]", "fd00::"),
    ],
)
def test_a_host_of_the_settings(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize("text", ["http://a", "a:8000", "a/b", "a.*", "", "a b"])
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://Chat.example.com/", "https://chat.example.com"),
        ("https://a:443", "https://a"),
        ("http://a:3000", "http://a:3000"),
        ("chrome-extension://abc", "chrome-extension://abc"),
        ("null", "null"),
        ("*", "*"),
    ],
)
def test_an_origin_of_the_settings(text: str, origin: str) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize("text", ["chat.example.com", "https://", "https://a/b", "https://a?b", ""])
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        parse_origin(text)
