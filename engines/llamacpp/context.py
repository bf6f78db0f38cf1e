"""A `llama_context`: the KV cache and the forward pass. Used by one thread at a time."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt

from engines.errors import EngineError
from engines.llamacpp import native_context, native_log
from engines.llamacpp.adapters import LlamaAdapter
from engines.llamacpp.kv_cache import State
from engines.llamacpp.media.positions import SlotPositions
from engines.llamacpp.media.spans import Span
from engines.llamacpp.model import LlamaModel
from engines.llamacpp.token_batch import EmbeddingBatch, TokenBatch

Logits = npt.NDArray[np.float32]

# Of the logits of prompts: tokens a step, and bytes.
MOST_SCORED = 32
SCORING_MEMORY = 16 * 2**20
# Of the four coordinates of a medium's embeddings, those that move with what is before it.
_MOVES = np.array([[1], [1], [1], [0]], dtype=np.int32)


class DecodeError(EngineError):
    """`llama_decode` refused or failed; the KV cache may hold part of the batch."""


class KvCacheFull(DecodeError):
    """`llama_decode` found no cells for the batch; the KV cache is unchanged."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Tokens of one sequence for the next forward pass.

    They are those from number ``start`` on of KV sequence ``slot``; logits are wanted for the last
    ``outputs``. Those of a ``span`` of media are computed by themselves.
    """

    slot: int
    start: int
    tokens: Seq[int]
    outputs: int = 0
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class ContextSize:
    """The size of a context: cells and batch in tokens, ``slots`` in KV sequences.

    ``pooled`` cells are one pool; otherwise every slot has ``cells / slots`` of its own. A forward pass may
    hold ``drafts`` drafted tokens.
    """

    cells: int
    slots: int
    pooled: bool = True
    batch: int = 512
    drafts: int = 0


class LlamaContext:
    """Owns one native context over ``model``."""

    def __init__(self, model: LlamaModel, size: ContextSize, *, threads: int, offload: bool = False) -> None:
        self.model = model
        self.cells = size.cells
        self.batch_size = size.batch
        self.pooled = size.pooled
        self.outputs = size.slots + size.drafts + scored_at_once(model.n_vocab)
        with model.adapters.counting():
            self._handle = _create(model, size, self.outputs, threads, offload)
        self._has_turned = False
        self._memory = lib.llama_get_memory(self._handle)
        self._batch = TokenBatch(size.batch)
        self._outputs: list[int] = []
        self._positions = SlotPositions()

    def decode(self, slices: Seq[Slice]) -> Logits:
        """Run one forward pass; the sum of the slices' tokens is at most `batch_size`, and a slice of media
        is alone.

        Returns a view, one row for each output of the slices, in order, of which there are at most
        `outputs`; it is valid (and may be edited in place) until the next call. Raises `KvCacheFull` or
        `DecodeError`.
        """
        if slices and slices[0].span is not None:
            return self._decode_media(slices[0], slices[0].span)
        n = 0
        batch = self._batch
        batch.wanted[:] = 0
        self._outputs = []
        for piece in slices:
            end = n + len(piece.tokens)
            batch.put(n, piece.slot, self._positions.at(piece.slot, piece.start), piece.tokens)
            if piece.outputs:
                batch.wanted[end - piece.outputs : end] = 1
                self._outputs += range(end - piece.outputs, end)
            n = end
        self._run(batch.native(n))
        return self._rows()

    def _decode_media(self, piece: Slice, span: Span) -> Logits:
        """The same for embeddings. Those that see each other are the whole span."""
        chunk, count, done = span.chunk, len(piece.tokens), piece.start - span.start
        base = self._positions.at(piece.slot, span.start)
        if chunk.offsets is None:
            positions = np.arange(base + done, base + done + count, dtype=np.int32)
        else:
            positions = chunk.offsets[:, done : done + count] + _MOVES * base
        embeddings = span.embeddings[done : done + count]
        batch = EmbeddingBatch(piece.slot, embeddings, positions, piece.outputs)
        self._outputs = list(range(count - piece.outputs, count))
        if not chunk.causal:
            lib.llama_set_causal_attn(self._handle, False)
        try:
            self._run(batch.native)
        finally:
            if not chunk.causal:
                lib.llama_set_causal_attn(self._handle, True)
        if piece.start + count == span.end:
            self._positions.note(piece.slot, span.start, span.end, chunk.positions)
        return self._rows()

    def _run(self, batch: Any) -> None:
        if self._has_turned:
            self._has_turned = False
            with self.model.adapters.counting():
                code = lib.llama_decode(self._handle, batch)
        else:
            code = lib.llama_decode(self._handle, batch)
        self._check(code)

    def _rows(self) -> Logits:
        shape = (len(self._outputs), self.model.n_vocab)
        if not self._outputs:
            return np.empty(shape, dtype=np.float32)
        return np.ctypeslib.as_array(lib.llama_get_logits(self._handle), shape=shape)

    def adapt(self, adapter: LlamaAdapter | None) -> None:
        """Compute with ``adapter`` from now on; None: with the plain model. The next `decode` takes longer,
        as llama.cpp plans its work anew."""
        count = 0 if adapter is None else 1
        handles = (lib.llama_adapter_lora_p_ctypes * 1)(None if adapter is None else adapter.handle)
        scales = (ctypes.c_float * 1)(0.0 if adapter is None else adapter.scale)
        if lib.llama_set_adapters_lora(self._handle, handles, count, scales) != 0:
            raise DecodeError(f"llama.cpp cannot turn to an adapter: {native_log.recent_errors()}")
        self._has_turned = True

    def sample(self, chain: Any, row: int) -> int:
        """Draw a token with a native sampler chain from row ``row`` of the last `decode`."""
        return int(lib.llama_sampler_sample(chain, self._handle, self._outputs[row]))

    def set_threads(self, threads: int) -> None:
        lib.llama_set_n_threads(self._handle, threads, threads)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let ``target`` hold the first ``length`` tokens of ``source``: by reference in a pool."""
        if self.pooled:
            lib.llama_memory_seq_cp(self._memory, source, target, 0, self._positions.at(source, length))
            self._positions.set(target, self._positions.of(source), length)
            return
        # Between slots with cells of their own, llama_memory_seq_cp copies all cells, used or not.
        if not self.load(target, self.save(source)):
            raise DecodeError("llama.cpp could not copy a prefix")
        self.truncate(target, length)

    def save(self, slot: int) -> State:
        """A copy of what ``slot`` holds."""
        size = lib.llama_state_seq_get_size(self._handle, slot)
        data = np.empty(size, dtype=np.uint8)  # not a ctypes array: those are zeroed first
        lib.llama_state_seq_get_data(self._handle, _bytes_of(data), size, slot)
        return State(data, self._positions.of(slot))

    def load(self, slot: int, state: State) -> bool:
        """Let the empty ``slot`` hold what was saved, in neighbouring cells; False if there are none."""
        if not lib.llama_state_seq_set_data(self._handle, _bytes_of(state.data), state.data.size, slot):
            return False
        self._positions.set(slot, state.shifts)
        return True

    def clear(self) -> None:
        """Drop what every slot holds: the next token gets the first cell."""
        lib.llama_memory_clear(self._memory, False)
        self._positions.clear()

    def truncate(self, slot: int, length: int) -> None:
        """Keep the first ``length`` tokens of ``slot``."""
        lib.llama_memory_seq_rm(self._memory, slot, self._positions.at(slot, length), -1)
        self._positions.cut(slot, length)

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.llama_free(handle)

    def _check(self, code: int) -> None:
        if code == 0:
            return
        if code == 1:
            raise KvCacheFull("llama.cpp found no room in the KV cache")
        raise DecodeError(f"llama_decode failed with code {code}: {native_log.recent_errors()}")


def _bytes_of(data: npt.NDArray[np.uint8]) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def scored_at_once(n_vocab: int) -> int:
    """Tokens of prompts whose log probabilities are computed in one step: each takes a row of logits, and
    milliseconds in which nobody else's tokens come."""
    return max(1, min(MOST_SCORED, SCORING_MEMORY // (4 * n_vocab)))


def _create(model: LlamaModel, size: ContextSize, outputs: int, threads: int, offload: bool) -> Any:
    params = native_context.parameters(threads, offload)
    params.n_ctx = size.cells
    params.n_batch = params.n_ubatch = size.batch
    params.n_seq_max = size.slots
    params.n_outputs_max = outputs  # llama.cpp asserts that every slot could have one
    params.kv_unified = size.pooled
    return native_context.create(
        model, params, what=f"{size.cells} tokens", smaller="KV_CACHE_TOKENS or CONTEXT_LENGTH"
    )
