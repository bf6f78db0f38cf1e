"""What the setting UPSTREAMS and the catalog's list say, and what is said about mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from balancer.backends.upstream_config import Upstream, check_names, from_catalog, parse_upstreams
from engines.models.catalog import UpstreamEntry


def only(text: str) -> Upstream:
    [upstream] = parse_upstreams(text)
    return upstream


def test_all_options() -> None:
    text = (
        "http://gpu1:8000/v1#weight=2.5&key=sk-a+b%2C1&model=ours:theirs&model=x&model=llama%3A8b"
        "&max_concurrent=64&name=gpu1"
    )
    assert only(text) == Upstream(
        name="gpu1",
        url="http://gpu1:8000/v1",
        api_key="sk-a+b,1",
        weight=2.5,
        models={"ours": "theirs", "x": "x", "llama:8b": "llama:8b"},
        max_concurrent=64,
    )


@pytest.mark.parametrize(
    ("text", "url", "name"),
    [
        ("http://gpu1", "http://gpu1/v1", "gpu1"),
        ("http://gpu1:8000/", "http://gpu1:8000/v1", "gpu1:8000"),
        ("https://host/openai/v1/", "https://host/openai/v1", "host"),
        ("http://[::1]:8000", "http://[::1]:8000/v1", "[::1]:8000"),
        ("http://a_b.c-d.:65535", "http://a_b.c-d.:65535/v1", "a_b.c-d.:65535"),
    ],
)
def test_urls(text: str, url: str, name: str) -> None:
    upstream = only(text)
    assert (upstream.api_key, upstream.weight, upstream.models, upstream.max_concurrent) == (
        None,
        1.0,
        {},
        None,
    )


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_none(text: str) -> None:
    assert parse_upstreams(text) == ()


def test_several() -> None:
    assert [each.name for each in parse_upstreams("http://a, http://b#weight=2 ,")] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("gpu1:8000", "entry 1 is no URL"),
        ("http://a#key=secret,half", "entry 2 is no URL; a comma in an option is written %2C"),
        ("ftp://a", "ftp://a: this is no URL such as http://host:8000/v1"),
        ("http://", "this is no URL"),
        ("http://a:b", "http://a:b: the port must be a number"),
        ("http://me:secret@a", "http://a: put the key after #key="),
        ("http://a/v1?key=secret", "http://a/v1: the URL cannot have a query: options come after #"),
        ("http://me:secret@a/v1?x=://b", "http://a/v1: put the key after #key="),
        ("ftp://me:secret@a/v1?x=://b@c", "ftp://a/v1: this is no URL"),
        ("http://a/v 1", "must be escaped"),
        ("http://a#wieght=1", "http://a: option 1 is none of name, key, weight, model, max_concurrent"),
        ("http://a#weight=1&weight=2", "the option weight is given twice"),
        ("http://a#weight=heavy", "weight must be a number"),
        ("http://a#weight=0", "weight must be a number above 0"),
        ("http://a#weight=-1", "weight must be a number above 0"),
        ("http://a#weight=nan", "weight must be a number above 0"),
        ("http://a#weight=inf", "weight must be a number above 0, at most 1000"),
        ("http://a#weight=1000.1", "weight must be a number above 0, at most 1000"),
        ("http://a#weight=1" + "0" * 400, "weight must be a number above 0, at most 1000"),
        ("http://a#max_concurrent=1000001", "max_concurrent must be at least 1, at most 1000000"),
        ("http://a#max_concurrent=" + "9" * 5000, "max_concurrent must be a whole number"),
        ("http://a#key=" + "secret" * 1000, "the key is empty, too long"),
        ("http://a#" + "&".join(f"model=m{n}" for n in range(1001)), "at most 1000 models may be named"),
        ("http://a:0", "the port must be a number from 1 to 65535"),
        ("http://a:65536", "the port must be a number from 1 to 65535"),
        ("http://a/" + "x" * 2048, "the URL has more than 2048 characters"),
        ("http://a..b", "the host has characters that none can have"),
        ("http://a;b", "the host has characters that none can have"),
        ("http://a\\b", "the host has characters that none can have"),
        ("http://-%00", "the host has characters that none can have"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://a#max_concurrent=0", "max_concurrent must be at least 1"),
        ("http://a#max_concurrent=1.5", "max_concurrent must be a whole number"),
        ("http://a#model=a:b:c", "a colon that belongs to a name is written %3A"),
        ("http://a#model=a:", "a name has 1 to"),
        ("http://a#model=", "a name has 1 to"),
        ("http://a#name=a%20b", "a name has no spaces"),
        ("http://a#key=", "the key is empty"),
        ("http://a#key=secret%0d%0aX: 1", "characters that a header cannot have"),
        (
            "http://a,http://a/v2",
            "http://a/v1 and http://a/v2 are both called a: give one another name",
        ),
    ],
)
def test_mistakes(text: str, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is checked
        parse_upstreams(text)
    assert complaint in str(caught.value)
    assert "secret" not in str(caught.value)


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(only("http://a#key=secret"))


# -- the catalog ------------------------------------------------------------------------------------


def test_a_whole_entry(tmp_path: Path) -> None:
    (tmp_path / "a.key").write_text("sk-1\n")
    entry = UpstreamEntry(
        url="http://gpu1:8000", api_key_file="a.key", weight=2.0, models={"ours": "theirs"}, max_concurrent=8
    )
    assert from_catalog(entry, tmp_path) == Upstream(
        "gpu1:8000", "http://gpu1:8000/v1", "sk-1", 2.0, {"ours": "theirs"}, 8
    )


def test_a_name_and_a_key_of_its_own(tmp_path: Path) -> None:
    upstream = from_catalog(UpstreamEntry(url="http://a/v1", name="b", api_key="sk-1"), tmp_path)
    assert upstream == Upstream("b", "http://a/v1", "sk-1")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "No such file"), (b"\xff", "it is not plain text"), (b"", "the key is empty")],
)
def test_key_files_of_no_use(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / "a.key").write_bytes(content)
    with pytest.raises(ValueError, match=complaint) as caught:
        from_catalog(UpstreamEntry(url="http://a", api_key_file="a.key"), tmp_path)
    assert str(caught.value).startswith("http://a: ")


def test_names_are_unique_over_both() -> None:
    with pytest.raises(ValueError, match="both called a"):
        check_names([only("http://a"), only("http://b#name=a")])
