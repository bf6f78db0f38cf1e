"""`llama_batch`es over numpy arrays: filling native arrays item by item would cost more than sampling."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence as Seq
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt


class TokenBatch:
    """Room for ``size`` tokens, each of one sequence. ``wanted`` marks those whose outputs are wanted."""

    def __init__(self, size: int) -> None:
        self.wanted = np.zeros(size, dtype=np.int8)
        self._tokens = np.zeros(size, dtype=np.int32)
        self._positions = np.zeros(size, dtype=np.int32)
        self._slots = np.zeros(size, dtype=np.int32)
        self._slot_counts = np.ones(size, dtype=np.int32)
        # The batch wants a list of sequences a token: each entry points at one element of _slots.
        self._slot_pointers = self._slots.ctypes.data + 4 * np.arange(size, dtype=np.uintp)
        self._native = lib.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, lib.llama_token),
            embd=None,
            pos=_pointer(self._positions, lib.llama_pos),
            n_seq_id=_pointer(self._slot_counts, ctypes.c_int32),
            seq_id=_pointer(self._slot_pointers, ctypes.POINTER(lib.llama_seq_id)),
            logits=_pointer(self.wanted, ctypes.c_int8),
        )

    def put(self, place: int, slot: int, start: int, tokens: Seq[int]) -> None:
        """Put ``tokens``, which take positions ``start`` onwards of sequence ``slot``, at ``place``."""
        end = place + len(tokens)
        self._tokens[place:end] = tokens
        self._positions[place:end] = np.arange(start, start + len(tokens))
        self._slots[place:end] = slot

    def native(self, count: int) -> Any:
        """The batch of the first ``count`` tokens, as llama.cpp takes it."""
        self._native.n_tokens = count
        return self._native


class EmbeddingBatch:
    """Embeddings for KV sequence ``slot``, and their positions: one row of them, or several where a place has
    several coordinates. Outputs of the last ``outputs`` are wanted."""

    def __init__(
        self, slot: int, embeddings: npt.NDArray[np.float32], positions: npt.NDArray[np.int32], outputs: int
    ) -> None:
        count = len(embeddings)
        self._embeddings = np.ascontiguousarray(embeddings)
        self._positions = np.ascontiguousarray(positions)
        self._wanted = np.zeros(count, dtype=np.int8)
        self._wanted[count - outputs :] = 1
        self._slot_counts = np.ones(count, dtype=np.int32)
        self._slots = np.full(count, slot, dtype=np.int32)
        self._slot_pointers = self._slots.ctypes.data + 4 * np.arange(count, dtype=np.uintp)
        self.native = lib.llama_batch(
            n_tokens=count,
            token=None,
            embd=_pointer(self._embeddings, ctypes.c_float),
            pos=_pointer(self._positions, lib.llama_pos),
            n_seq_id=_pointer(self._slot_counts, ctypes.c_int32),
            seq_id=_pointer(self._slot_pointers, ctypes.POINTER(lib.llama_seq_id)),
            logits=_pointer(self._wanted, ctypes.c_int8),
        )


def _pointer(array: npt.NDArray[Any], kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
