"""The registry of upstreams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import overload

from balancer.backends.upstream import UpstreamBackend


class Upstreams(Sequence[UpstreamBackend]):
    """The upstreams that calls may go to, in the order in which they were added."""

    def __init__(self) -> None:
        self._backends: list[UpstreamBackend] = []

    def __len__(self) -> int:
        return len(self._backends)

    @overload
    def __getitem__(self, index: int) -> UpstreamBackend: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[UpstreamBackend]: ...
    def __getitem__(self, index: int | slice) -> UpstreamBackend | Sequence[UpstreamBackend]:
        return self._backends[index]

    def __iter__(self) -> Iterator[UpstreamBackend]:
        return iter(self._backends)  # `Sequence` would ask for one item after the other, for every request

    def find(self, name: str) -> UpstreamBackend | None:
        return next((upstream for upstream in self._backends if upstream.name == name), None)

    def serving(self, *names: str) -> list[UpstreamBackend]:
        """The upstreams that have a model, by one of its ``names``."""
        return [upstream for upstream in self._backends if any(map(upstream.serves, names))]

    def models(self) -> list[str]:
        """The models that any of them has, each once."""
        return list(dict.fromkeys(model for upstream in self._backends for model in upstream.models))

    def add(self, upstream: UpstreamBackend) -> None:
        """Start to look at its health, and let calls go there."""
        self._backends.append(upstream)
        upstream.start()

    def remove(self, upstream: UpstreamBackend) -> None:
        """Let no more calls go there; it is still to be stopped."""
        self._backends.remove(upstream)
        upstream.drain()

    async def stop(self) -> None:
        """Look at their health no more."""
        await asyncio.gather(*(upstream.stop() for upstream in self._backends))
