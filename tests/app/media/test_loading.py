"""Loading of a request's media: what they may take together, and what is left of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.body_memory import BodyMemory
from app.errors import ApiError
from app.inference.media import MediaList, MediaReference
from app.media import loading
from app.media.fetching import MediaFetcher
from app.media.loading import MediaLoader
from engines.errors import RequestError
from support.bad_upstream import answer, bad_upstream, hang
from support.pictures import data_url, picture

COLORS = ("red", "green", "blue", "white")


@pytest.fixture
def loader() -> Any:
    loader = MediaLoader(MediaFetcher("127.0.0.1/32"), BodyMemory(10**6))
    yield loader
    loader.close()


def references(*urls: str) -> tuple[MediaReference, ...]:
    media = MediaList()
    for index, url in enumerate(urls):
        media.image(url, f"images.{index}")
    return media.references


async def test_what_they_may_take_together(loader: MediaLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = [data_url(picture(color, (10, 10))) for color in COLORS]
    media = loader.of(references(*urls, urls[0]))
    await media.load()
    assert len(media.loaded) == 5
    assert media.loaded[0] is media.loaded[4]
    assert loader.memory.held > 0
    media.release()
    media.release()
    assert (loader.memory.held, media.loaded) == (0, ())
    for name, most, told in (
        ("MOST_REQUEST_PIXELS", 399, "pixels together"),
        ("MOST_REQUEST_BYTES", 300, "bytes together"),
    ):
        monkeypatch.setattr(loading, name, most)
        media = loader.of(references(*urls))
        with pytest.raises(RequestError, match=told):
            await media.load()
        media.release()


async def test_what_all_requests_may_take(loader: MediaLoader) -> None:
    """Another time it may be less: that is no mistake of the client."""
    loader.memory.take(999_999)
    media = loader.of(references(data_url(picture())))
    with pytest.raises(ApiError) as caught:
        await media.load()
    assert (caught.value.status, caught.value.code) == (503, "insufficient_memory")
    media.release()
    assert loader.memory.held == 999_999


async def test_who_leaves_ends_the_fetch(loader: MediaLoader) -> None:
    async with bad_upstream(hang) as server:
        media = loader.of(references(server.url, f"{server.url}/2"))
        loading = asyncio.create_task(media.load())
        while len(server.requests) < 2:
            await asyncio.sleep(0)
        loading.cancel()
        media.release()
        await asyncio.wait_for(server.lost.wait(), 5)
    assert loader.memory.held == 0


async def test_the_first_fault_ends_the_rest(loader: MediaLoader) -> None:
    async with bad_upstream(hang) as slow, bad_upstream(answer(b"no picture")) as wrong:
        media = loader.of(references(slow.url, wrong.url))
        with pytest.raises(RequestError, match="no image") as caught:
            await asyncio.wait_for(media.load(), 4)
        assert caught.value.param == "images.1"
        await asyncio.wait_for(slow.lost.wait(), 5)
        media.release()


def test_too_many() -> None:
    media = MediaList(2)
    assert media.image("data:,a", "a") == {"type": "image", "index": 0}
    assert media.audio("aGk=", "wav", "b") == {"type": "audio", "index": 1}
    assert media.references[1].source == "data:audio/wav;base64,aGk="
    assert media.needs == {"vision": "a", "audio": "b"}
    with pytest.raises(RequestError, match="2 images and sounds at most") as caught:
        media.image("data:,a", "c")
    assert caught.value.param == "c"
