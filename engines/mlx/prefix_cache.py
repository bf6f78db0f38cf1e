"""The prefix cache: KV caches of finished sequences, for prompts that begin alike."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.mlx.library import can_trim_prompt_cache, trim_prompt_cache

Tokens = npt.NDArray[np.int64]

MOST_ENTRIES = 128


@dataclass(eq=False, slots=True)
class _Entry:
    """A sequence's tokens, and a KV cache for each layer that holds exactly these, made with ``adapter``."""

    tokens: Tokens
    caches: list[Any]
    nbytes: int
    adapter: Hashable = None

    @property
    def can_be_cut(self) -> bool:
        """False for sliding windows that slid and for recurrent states: they hold all or nothing."""
        return bool(can_trim_prompt_cache(self.caches))


class MlxPrefixCache:
    """Least recently used caches go first. Owned by the engine thread."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []  # least recently used first
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, tokens: Sequence[int], adapter: Hashable = None) -> tuple[list[Any] | None, int]:
        """Caches for the longest prefix of ``tokens`` known with ``adapter`` and its length, which leaves one
        token to compute at least. The caches share memory with the entry and may be trimmed and merged, not
        written to."""
        wanted = np.asarray(tokens, dtype=np.int64)
        best, length = None, 0
        for entry in self._of(adapter):
            usable = _usable(entry, wanted)
            if usable > length:
                best, length = entry, usable
        if best is None:
            return None, 0
        self._touch(best)
        caches = copy.deepcopy(best.caches)  # MLX arrays share their buffers with their copies
        if surplus := len(best.tokens) - length:
            trim_prompt_cache(caches, surplus)
        return caches, length

    def put(self, tokens: Sequence[int], caches: list[Any], limit: int, adapter: Hashable = None) -> None:
        """Keep ``caches``, which hold ``tokens``, within ``limit`` bytes for all entries."""
        nbytes = sum(int(c.nbytes) for c in caches)
        new = _Entry(np.asarray(tokens, dtype=np.int64), caches, nbytes, adapter)
        if new.nbytes > limit:
            return
        for old in self._of(adapter):
            common = common_prefix(old.tokens, new.tokens)
            if common == len(new.tokens) and (old.can_be_cut or common == len(old.tokens)):
                self._touch(old)
                return
            if common == len(old.tokens) and new.can_be_cut:
                self._drop(old)
        self._entries.append(new)
        self.nbytes += new.nbytes
        self.shrink(limit)

    def shrink(self, limit: int) -> None:
        """Drop entries until what is left takes at most ``limit`` bytes."""
        while self._entries and (self.nbytes > limit or len(self._entries) > MOST_ENTRIES):
            self._drop(self._entries[0])

    def forget(self, adapter: Hashable) -> None:
        """Drop what was computed with ``adapter``."""
        for entry in self._of(adapter):
            self._drop(entry)

    def _of(self, adapter: Hashable) -> list[_Entry]:
        return [entry for entry in self._entries if entry.adapter is adapter]

    def clear(self) -> None:
        self._entries.clear()
        self.nbytes = 0

    def _touch(self, entry: _Entry) -> None:
        self._entries.remove(entry)
        self._entries.append(entry)

    def _drop(self, entry: _Entry) -> None:
        self._entries.remove(entry)
        self.nbytes -= entry.nbytes


def _usable(entry: _Entry, wanted: Tokens) -> int:
    """How many tokens of ``wanted`` the entry can stand for."""
    common = min(common_prefix(entry.tokens, wanted), len(wanted) - 1)
    return common if common == len(entry.tokens) or entry.can_be_cut else 0


def common_prefix(a: Tokens, b: Tokens) -> int:
    """How many first elements are equal."""
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if different.size else length
