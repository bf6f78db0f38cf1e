"""An upstream's key never passes, in one piece or in several."""

from __future__ import annotations

import gzip
from itertools import pairwise

import pytest

from balancer.errors import BackendFailed, BadAnswer
from balancer.proxy.client import ProxyClient
from balancer.proxy.masking import Mask, mask_for, masked
from support.bad_upstream import EVENTS, Wire, answer, ask, bad_upstream, events, read

KEY = "sk-sk-1234567890abcd"
STARS = "*" * len(KEY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (KEY, STARS),
        (f"a {KEY}{KEY} b {KEY}", f"a {STARS}{STARS} b {STARS}"),
        (f"sk-{KEY}", f"sk-{STARS}"),
        (KEY[:-1], KEY[:-1]),
        (f"{KEY[:-1]}{KEY}", f"{KEY[:-1]}{STARS}"),
        ("data: [DONE]\n\n", "data: [DONE]\n\n"),
    ],
)
def test_wherever_it_is_cut(text: str, expected: str) -> None:
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            mask = Mask(KEY.encode())
            pieces = [text[a:b].encode() for a, b in pairwise((0, first, second, len(text)))]
            assert b"".join([*map(mask.feed, pieces), mask.rest()]).decode() == expected


def test_what_cannot_be_the_key_is_not_held_back() -> None:
    mask = Mask(KEY.encode())
    for event in EVENTS:
        assert mask.feed(event) == event


def test_words_are_no_secrets() -> None:
    assert mask_for(200, None) is mask_for(500, None) is mask_for(200, "EMPTY") is mask_for(500, "x") is None
    assert mask_for(200, KEY)
    assert mask_for(500, "EMPTY")
    assert (masked("the x", None), masked("the x", "x"), masked("a sesame", "sesame")) == (
        "the x", "the x", "a ******",
    )  # fmt: skip


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad", b"429 Slow", b"500 Oops"])
async def test_no_answer_has_it(patient: ProxyClient, status: bytes) -> None:
    said = b'{"error":{"message":"%s is wrong"}}' % KEY.encode()
    async with bad_upstream(answer(said, b"x-ratelimit-key: " + KEY.encode(), status=status)) as upstream:
        reply = await ask(patient, upstream, key=KEY)
        body = await read(reply)
    assert body == said.replace(KEY.encode(), STARS.encode())
    headers = dict(reply.headers)
    assert headers[b"content-length"] == b"%d" % len(body)
    assert headers[b"x-ratelimit-key"] == STARS.encode()


async def test_an_error_that_cannot_be_read_does_not_pass(patient: ProxyClient) -> None:
    said = answer(gzip.compress(KEY.encode()), b"content-encoding: gzip", status=b"400 Bad")
    async with bad_upstream(said) as upstream:
        with pytest.raises(BadAnswer, match=r"an encoded error \(status 400\)"):
            await ask(patient, upstream, key=KEY)
        assert (await ask(patient, upstream)).status == 400  # nobody has a key here


async def test_no_stream_has_it(patient: ProxyClient) -> None:
    """The halves come apart, and the connection ends in the middle of what may be one."""
    first, second = KEY[:9].encode(), KEY[9:].encode()

    async def half(wire: Wire) -> None:
        await wire.chunk(b'data: {"x":"' + first)
        await wire.chunk(second + b'"}\n\n', EVENTS[-1])
        await wire.send(b"0\r\n\r\n")

    async with bad_upstream(events(then=half), answer(b"a" + first)) as upstream:
        streamed = await read(await ask(patient, upstream, key=KEY))
        assert streamed == b'data: {"x":"%s"}\n\n' % STARS.encode() + EVENTS[-1]
        assert await read(await ask(patient, upstream, key=KEY)) == b"a" + first


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        (f"https://me:secret@elsewhere.test/{KEY}/x?key={KEY}", f"https://elsewhere.test/{STARS}/x "),
        ("/" + "a" * 190 + KEY, "/" + "a" * 190 + "*" * 9 + " "),
        (f"//me:secret@{KEY}", f"//{STARS} "),
    ],
)
async def test_no_redirect_has_it(patient: ProxyClient, location: str, shown: str) -> None:
    script = answer(b"", b"Location: " + location.encode(), status=b"302 Found")
    async with bad_upstream(script) as upstream:
        for asking in (ask(patient, upstream, key=KEY), patient.get(upstream.url + "/models", key=KEY)):
            with pytest.raises(BackendFailed) as failure:
                await asking
            assert f" to {shown}" in failure.value.message
            assert "secret" not in failure.value.message
