"""Encoding of media beside the engine thread, one picture or sound at a time.

On CPUs it competes with decoding for the cores. So it takes half as many threads, of a lower priority, and
each medium has a thread of its own: see `in_own_thread`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from engines.base import Media
from engines.llamacpp.media.projector import Projector
from engines.llamacpp.media.spans import Embeddings, Spans, spans_of
from engines.machine.dedicated_thread import in_own_thread
from engines.machine.priority import step_back

Chunks = tuple[Embeddings, ...]
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Job:
    """The encoding of ``media`` for all ``waiters`` for it; what has ``begun`` nobody can end."""

    media: Media
    waiters: int = 0
    begun: bool = False
    task: asyncio.Task[Chunks] = field(init=False)


class MediaEncoder:
    """The encoder of one engine. Everything but the encoding itself runs on the event loop's thread."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector
        self._turn = asyncio.Lock()
        self._jobs: dict[str, _Job] = {}
        self._threads: set[asyncio.Future[Any]] = set()
        self._computed = self._known = 0

    async def layout_ids(self, media: Media) -> tuple[int, ...]:
        """The ids that stand for ``media`` in a prompt. Raises `RequestError` for what cannot be read."""
        if media.kind == "image":  # its header says it all
            return self._projector.layout(media).token_ids
        return (await self._in_thread(lambda: self._projector.layout(media), "layout")).token_ids

    async def spans(self, token_ids: Sequence[int], media: Sequence[Media]) -> Spans:
        """The spans of a prompt with ``media``, in their order, once they are encoded.

        Raises `RequestError` for what cannot be decoded.
        """
        embeddings = [await self._encoded(each) for each in media]
        layouts = [self._projector.layout(each) for each in media]
        return spans_of(token_ids, layouts, embeddings)

    def metrics(self) -> Mapping[str, float]:
        """Images and sounds that were encoded, and those that were known from before."""
        return {"media_encoded_total": self._computed, "media_cached_total": self._known}

    async def close(self) -> None:
        """Give up what waits, and return when no thread uses the projector any more."""
        for job in [*self._jobs.values()]:
            if not job.begun:
                job.task.cancel()
        while self._threads:
            await asyncio.wait(self._threads)

    async def _encoded(self, media: Media) -> Chunks:
        known = self._projector.kept.get(media.key)
        if known is not None:
            self._known += 1
            return known
        job = self._jobs.get(media.key)
        if job is None:
            job = self._jobs[media.key] = _Job(media)
            job.task = asyncio.ensure_future(self._encode(job))
            job.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # waiters are told
        else:
            self._known += 1
        job.waiters += 1
        try:
            return await asyncio.shield(job.task)
        finally:
            job.waiters -= 1
            if not job.waiters and not job.begun:
                job.task.cancel()
                self._forget(job)

    async def _encode(self, job: _Job) -> Chunks:
        try:
            async with self._turn:
                job.begun = True
                found, computed = await self._in_thread(lambda: self._projector.encode(job.media), "encode")
        finally:
            self._forget(job)
        self._computed += computed
        self._known += not computed
        return found

    def _forget(self, job: _Job) -> None:
        if self._jobs.get(job.media.key) is job:
            del self._jobs[job.media.key]

    async def _in_thread(self, compute: Callable[[], T], what: str) -> T:
        def run() -> T:
            step_back()
            return compute()

        work = in_own_thread(run, f"llamacpp-{what}")
        self._threads.add(work)
        work.add_done_callback(self._threads.discard)
        return await asyncio.shield(work)
