"""LoRA adapters that a running vLLM takes and lets go of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engines.base import Adapter
from engines.errors import BadModelFile, CannotLoad, UnsupportedFeature
from engines.limits import no_adapter
from engines.vllm.folder import largest_rank


class VllmAdapters:
    """vLLM's LoRA requests by the adapters' names; each gets a number of its own."""

    def __init__(self, adapters: Iterable[Adapter], most: int | None) -> None:
        """``most`` is the highest rank that vLLM was started for; None: it was started without adapters."""
        self._most = most
        self._number = 0
        self._requests: dict[str, Any] = {}
        for adapter in adapters:
            self._requests[adapter.name] = self._request(adapter)

    def of(self, name: str | None) -> Any:
        """vLLM's LoRA request for an adapter; None for the plain model. Raises `UnsupportedFeature`."""
        if name is None:
            return None
        if name not in self._requests:
            raise no_adapter(name, self._requests)
        return self._requests[name]

    async def add(self, adapter: Adapter, llm: Any) -> None:
        """Have vLLM load ``adapter``, unless one of its name is there. Raises `BadModelFile`."""
        if self._most is None:
            raise UnsupportedFeature(
                "vLLM was started without adapters: say `options: {enable_lora: true}` for this model in "
                "models.yaml, and load it again",
                param="model",
            )
        if adapter.name in self._requests:
            return
        if (rank := largest_rank((adapter,))) > self._most:
            raise CannotLoad(
                f"the adapter {adapter.name} has rank {rank}, and vLLM was started for {self._most} at most: "
                f"say `options: {{max_lora_rank: {rank}}}` in models.yaml"
            )
        request = self._request(adapter)
        try:
            await llm.add_lora(request)
        except Exception as error:
            raise BadModelFile(f"vLLM cannot load the adapter {adapter.name}: {error}") from error
        self._requests[adapter.name] = request

    def take_out(self, name: str) -> Any:
        """Give out the adapter no more; returns vLLM's LoRA request for it, None if there is none."""
        return self._requests.pop(name, None)

    def _request(self, adapter: Adapter) -> Any:
        from vllm.lora.request import LoRARequest

        self._number += 1
        return LoRARequest(adapter.name, self._number, str(adapter.path))
