"""What the manager keeps: an engine of this process, or whatever else holds a model and its memory."""

from __future__ import annotations

from typing import Protocol

from engines.base import EngineInfo, EngineStats, Health


class Resident(Protocol):
    """The part of an engine's contract (`engines.base.Engine`) that deals with coming and going."""

    @property
    def info(self) -> EngineInfo: ...

    def stats(self) -> EngineStats: ...

    async def health(self) -> Health: ...

    async def sleep(self) -> None: ...

    async def wake(self) -> None: ...

    async def close(self) -> None: ...
