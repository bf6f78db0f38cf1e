"""Loading of media: from references to checked bytes, within limits for one request and for all."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from app.body_memory import BodyMemory
from app.inference.media import MediaReference
from app.media import data_urls
from app.media.fetching import MediaFetcher
from engines.base import Media
from engines.errors import RequestError
from engines.media import READERS

MOST_REQUEST_BYTES = 64 * 2**20
MOST_REQUEST_PIXELS = 100_000_000
"""Of all files of one request together."""

# Of one request at once.
_MOST_FETCHES = 4
# What holds URLs in requests of any API, alone or in a list.
_URL_FIELDS = ("url", "image_url", "audio_url", "images")

T = TypeVar("T")
_Key = tuple[str, str]


class MediaLoader:
    """Loads the media of all requests. Decoding of base64 and reading of headers happen in a few threads;
    ``memory`` counts the bytes of all that is loaded."""

    def __init__(self, fetcher: MediaFetcher, memory: BodyMemory) -> None:
        self.fetcher = fetcher
        self.memory = memory
        self._threads = ThreadPoolExecutor(2, "media")

    def of(self, references: Sequence[MediaReference]) -> RequestMedia:
        """The media of a request, of which nothing is loaded yet."""
        return RequestMedia(self, references)

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        self.fetcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


class RequestMedia:
    """The media of one request: ``loaded`` is empty before `load`. They hold memory until `release`."""

    def __init__(self, loader: MediaLoader, references: Sequence[MediaReference]) -> None:
        self.loaded: Sequence[Media] = ()
        self._loader = loader
        self._references = references
        self._fetched: Mapping[str, Media] = {}
        self._held = 0
        self._released = False

    async def load(self) -> None:
        """Load them all. Raises `RequestError` naming the field at fault, and `ApiError` where the server
        holds too much for others."""
        if not self._references:
            return
        first = self._references[0].param
        # What is there several times is loaded once.
        distinct = {_key(each): each for each in reversed(self._references)}.values()
        embedded = [each for each in distinct if data_urls.is_data_url(each.source)]
        # Told before it is decoded: four characters of base64 are three bytes.
        self._take(sum(len(each.source) for each in embedded) * 3 // 4, first)
        found = await self._loader.run(lambda: {_key(each): _read(each) for each in embedded})
        remote = [each for each in distinct if not data_urls.is_data_url(each.source)]
        found |= await self._fetch_all(remote)
        _check_pixels(found.values(), first)
        self._fetched = {each.source: found[_key(each)] for each in remote}
        self.loaded = tuple(found[_key(each)] for each in self._references)
        self._references = ()

    async def inline(self, body: bytes) -> bytes:
        """The request's ``body`` with what was fetched in it, for a process of ours that fetches nothing."""
        fetched = self._fetched
        return await self._loader.run(lambda: _inlined(body, fetched)) if fetched else body

    def release(self) -> None:
        """Let go of what is loaded, and of what still comes. Idempotent."""
        self._loader.memory.give_back(self._held)
        self._released, self._held = True, 0
        self.loaded, self._fetched = (), {}

    async def _fetch_all(self, remote: Sequence[MediaReference]) -> dict[_Key, Media]:
        turn = asyncio.Semaphore(_MOST_FETCHES)
        fetches = [asyncio.ensure_future(self._fetch(each, turn)) for each in remote]
        try:
            return dict(zip(map(_key, remote), await asyncio.gather(*fetches), strict=True))
        finally:
            for fetch in fetches:
                fetch.cancel()

    async def _fetch(self, reference: MediaReference, turn: asyncio.Semaphore) -> Media:
        param = reference.param
        async with turn:
            fetcher = self._loader.fetcher
            data = await fetcher.fetch(reference.source, param, lambda size: self._take(size, param))
        return await self._loader.run(lambda: READERS[reference.kind](data, param))

    def _take(self, size: int, param: str) -> None:
        """``size`` more bytes are held."""
        if self._released:
            raise asyncio.CancelledError
        self._held += size
        self._loader.memory.take(size)
        if self._held > MOST_REQUEST_BYTES:
            raise RequestError(
                f"the files of one request may have {MOST_REQUEST_BYTES:,} bytes together", param
            )


def _key(reference: MediaReference) -> _Key:
    return reference.kind, reference.source


def _read(reference: MediaReference) -> Media:
    data = data_urls.read(reference.source, reference.param)
    return READERS[reference.kind](data, reference.param)


def _check_pixels(media: Iterable[Media], param: str) -> None:
    if sum(each.width * each.height for each in media) > MOST_REQUEST_PIXELS:
        raise RequestError(
            f"the images of one request may have {MOST_REQUEST_PIXELS // 1_000_000} million pixels together",
            param,
        )


def _inlined(body: bytes, fetched: Mapping[str, Media]) -> bytes:
    """``body`` with data URLs in the place of URLs."""
    urls = {url: "data:;base64," + b64encode(media.data).decode() for url, media in fetched.items()}
    return json.dumps(_replaced(json.loads(body), urls)).encode()


def _replaced(node: Any, urls: Mapping[str, str], field: str = "") -> Any:
    if isinstance(node, dict):
        return {name: _replaced(value, urls, name) for name, value in node.items()}
    if isinstance(node, list):
        return [_replaced(each, urls, field) for each in node]
    return urls.get(node, node) if field in _URL_FIELDS and isinstance(node, str) else node
