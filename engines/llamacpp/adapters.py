"""LoRA adapters over the weights of a native model, each in memory once for all contexts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib

from engines.base import Adapter
from engines.errors import BadModelFile
from engines.llamacpp import native_log
from engines.models.store import stamp


@dataclass(frozen=True, slots=True, eq=False)
class LlamaAdapter:
    """An adapter that an engine can compute with. Each has cached prefixes of its own."""

    name: str
    handle: Any
    scale: float
    nbytes: int
    key: object


class NativeAdapters:
    """The adapters of one native model.

    A context that turns to another adapter counts the nodes of all of them; llama.cpp does not guard that
    against their coming and going, so who does either holds `counting` or `_changing`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._held: dict[object, tuple[Any, int]] = {}
        self._lock = threading.Condition()
        self._counting = 0

    def acquire(self, adapter: Adapter) -> LlamaAdapter:
        """Load the checked ``adapter``, unless it is held; pair with `release`. Raises `ModelLoadError`."""
        key = (adapter.path.resolve(), stamp(adapter.path))
        with self._changing():
            handle, holders = self._held.get(key, (None, 0))
            if handle is None:
                handle = _load(self._model, adapter.path)
            self._held[key] = handle, holders + 1
        return LlamaAdapter(adapter.name, handle, adapter.scale, adapter.nbytes, key)

    def release(self, adapter: LlamaAdapter) -> None:
        """Give up one hold; the last one frees it. No context may compute with it any more."""
        with self._changing():
            handle, holders = self._held.pop(adapter.key)
            if holders > 1:
                self._held[adapter.key] = handle, holders - 1
            else:
                lib.llama_adapter_lora_free(handle)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """No adapter comes or goes meanwhile. Contexts may do this at the same time."""
        with self._lock:
            self._counting += 1
        try:
            yield
        finally:
            with self._lock:
                self._counting -= 1
                self._lock.notify_all()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            self._lock.wait_for(lambda: not self._counting)
            yield


def _load(model: Any, path: Path) -> Any:
    native_log.forget_errors()
    handle = lib.llama_adapter_lora_init(model, str(path).encode())
    if not handle:
        reason = native_log.recent_errors() or "no reason given"
        raise BadModelFile(f"llama.cpp cannot load the adapter {path.name}: {reason}")
    return handle
