"""What is kept of media that were seen: their layouts, and their embeddings. Any thread may ask."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from engines.llamacpp.media.layout import MediaLayout
from engines.llamacpp.media.spans import Embeddings

# Pictures whose layout is kept; it has some ten kilobytes.
MOST_LAYOUTS = 256

V = TypeVar("V")


class _Kept(Generic[V]):
    """Values by the key of a medium, least recently used first, of at most ``limit`` size in all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._values: OrderedDict[str, tuple[V, int]] = OrderedDict()
        self._size = 0

    def get(self, key: str) -> V | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put_sized(self, key: str, value: V, size: int) -> None:
        """Keep ``value``, unless it alone is beyond the limit."""
        with self._lock:
            if size > self._limit or key in self._values:
                return
            self._values[key] = value, size
            self._size += size
            while self._size > self._limit:
                self._size -= self._values.popitem(last=False)[1][1]


class KeptLayouts(_Kept[MediaLayout]):
    """The last layouts."""

    def __init__(self) -> None:
        super().__init__(MOST_LAYOUTS)

    def put(self, key: str, layout: MediaLayout) -> None:
        self.put_sized(key, layout, 1)


class KeptEmbeddings(_Kept[tuple[Embeddings, ...]]):
    """The last embeddings, by how many numbers they have."""

    @property
    def nbytes(self) -> int:
        """What they may come to."""
        return 4 * self._limit

    def put(self, key: str, chunks: tuple[Embeddings, ...]) -> None:
        self.put_sized(key, chunks, sum(each.size for each in chunks))
