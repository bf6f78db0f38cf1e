"""The LoRA adapters of a model that an engine thread runs: they come and go between its requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

from engines.base import Adapter, GenerationRequest
from engines.batching.thread import EngineThread
from engines.errors import UnsupportedFeature
from engines.limits import no_adapter


class LoadedAdapter(Protocol):
    """An adapter as an engine computes with it."""

    @property
    def nbytes(self) -> int: ...


A = TypeVar("A", bound=LoadedAdapter)


class AdapterShelf(Generic[A]):
    """The adapters that are loaded, by name; ``load`` and ``free`` are the engine's part.

    ``free`` gets what no sequence has any more.
    """

    def __init__(self, load: Callable[[Adapter], Awaitable[A]], free: Callable[[A], Awaitable[None]]) -> None:
        self._load = load
        self._free = free
        self._by_name: dict[str, A] = {}

    @property
    def nbytes(self) -> int:
        return sum(adapter.nbytes for adapter in self._by_name.values())

    def of(self, request: GenerationRequest) -> A | None:
        """The adapter that ``request`` names; None for the plain model. Raises `UnsupportedFeature`."""
        if request.adapter is None:
            return None
        if request.adapter not in self._by_name:
            raise no_adapter(request.adapter, self._by_name)
        return self._by_name[request.adapter]

    async def add(self, adapter: Adapter) -> None:
        """Load ``adapter``, unless one of its name is there. Raises `ModelLoadError`."""
        if adapter.name not in self._by_name:
            self._by_name[adapter.name] = await self._load(adapter)

    async def remove(self, name: str, thread: EngineThread[Any]) -> None:
        """Free an adapter once no sequence of ``thread`` has it; none gets it from now on."""
        loaded = self._by_name.pop(name, None)
        if loaded is not None:
            await thread.drained(lambda sequence: sequence.request.adapter == name)
            await self._free(loaded)

    def clear(self) -> list[A]:
        """Take all of them out."""
        adapters = list(self._by_name.values())
        self._by_name.clear()
        return adapters


def no_adapters() -> AdapterShelf[Any]:
    """The shelf of an engine without the capability "adapters"."""

    async def refuse(adapter: Any) -> Any:
        raise UnsupportedFeature("this model's engine has no adapters", param="model")

    return AdapterShelf(refuse, refuse)
