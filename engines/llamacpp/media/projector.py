"""A loaded projector: an `mtmd_context`, which turns pictures and sounds into embeddings for one model."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import llama_cpp.mtmd_cpp as mtmd
import numpy as np

from engines.base import Media
from engines.errors import BadModelFile, EngineError, RequestError
from engines.llamacpp import native_log
from engines.llamacpp.media.bitmaps import Audio, Bitmap, Picture, bitmap_of, outline_of
from engines.llamacpp.media.kept import KeptEmbeddings, KeptLayouts
from engines.llamacpp.media.layout import MediaChunk, MediaLayout, Offsets, Part, pseudo_ids
from engines.llamacpp.media.spans import Embeddings

# The largest pictures that are looked at for how many tokens a chunk may have.
_LARGEST = ((4096, 4096), (4096, 1024), (1024, 4096))


class Projector:
    """Owns one native context over the model ``handle``, which must outlive it. Raises `BadModelFile`.

    `layout` may be called on any thread, also while another one encodes.
    """

    def __init__(self, path: Path, handle: Any, *, threads: int, use_gpu: bool, most_kept: int) -> None:
        """``most_kept``: the most numbers of embeddings that are kept for media that come again."""
        self.path = path
        self.width = int(lib.llama_model_n_embd_inp(handle))
        self.size = path.stat().st_size
        self._handle = _open(path, handle, threads, use_gpu)
        self._encoding = threading.Lock()
        self._layouts = KeptLayouts()
        self.kept = KeptEmbeddings(most_kept)
        self.has_vision = bool(mtmd.mtmd_support_vision(self._handle))
        self.has_audio = bool(mtmd.mtmd_support_audio(self._handle))
        self._is_2d = bool(mtmd.mtmd_decode_use_mrope(self._handle))
        self.sample_rate = int(mtmd.mtmd_get_audio_sample_rate(self._handle)) if self.has_audio else 0

    @property
    def senses(self) -> frozenset[str]:
        """Those of "vision" and "audio" that it has."""
        return frozenset(
            name for name, able in (("vision", self.has_vision), ("audio", self.has_audio)) if able
        )

    @property
    def at_once(self) -> int:
        """The most embeddings that must be computed at once; 0 if they may be cut anywhere."""
        if not self.has_vision or not mtmd.mtmd_decode_use_non_causal(self._handle, None):
            return 0
        layouts = (self._read("", Picture(*size)) for size in _LARGEST)
        return max(layout.largest for layout in layouts)

    def layout(self, media: Media) -> MediaLayout:
        """The tokens that ``media`` takes. Raises `RequestError` for what cannot be read."""
        layout = self._layouts.get(media.key)
        if layout is None:
            layout = self._read(media.key, outline_of(media, self.sample_rate))
            self._layouts.put(media.key, layout)
        return layout

    def encode(self, media: Media) -> tuple[tuple[Embeddings, ...], bool]:
        """The embeddings of each chunk of ``media``, and whether they had to be computed. Blocks.

        Raises `RequestError` for what cannot be decoded.
        """
        with self._encoding:  # whoever waited for the same picture finds it
            known = self.kept.get(media.key)
            if known is not None:
                return known, False
            expected = [chunk.size for chunk in self.layout(media).chunks]
            found = tuple(self._encode(bitmap_of(media, self.sample_rate)))
            if [len(each) for each in found] != expected:
                raise EngineError("a projector gave other embeddings than it had said")
            self.kept.put(media.key, found)
            return found, True

    def close(self) -> None:
        """Nothing may use it in another thread meanwhile, or afterwards."""
        handle, self._handle = self._handle, None
        if handle is not None:
            mtmd.mtmd_free(handle)

    def _read(self, key: str, bitmap: Bitmap) -> MediaLayout:
        parts: list[Part] = []
        with self._chunks(bitmap) as chunks:
            for chunk in chunks:
                if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
                    parts.append(_text(chunk))
                else:
                    index = sum(isinstance(part, MediaChunk) for part in parts)
                    parts.append(self._chunk(key, index, chunk))
        return MediaLayout(tuple(parts))

    def _chunk(self, key: str, index: int, chunk: Any) -> MediaChunk:
        size = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        return MediaChunk(
            ids=pseudo_ids(key, index, size),
            positions=int(mtmd.mtmd_input_chunk_get_n_pos(chunk)),
            causal=not mtmd.mtmd_decode_use_non_causal(self._handle, chunk),
            offsets=_offsets(chunk, size) if self._is_2d else None,
        )

    def _encode(self, bitmap: Bitmap) -> Iterator[Embeddings]:
        with self._chunks(bitmap) as chunks:
            for chunk in chunks:
                if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
                    continue
                native_log.forget_errors()
                if mtmd.mtmd_encode_chunk(self._handle, chunk):
                    raise EngineError(
                        f"the projector failed on an image or sound: {native_log.recent_errors()}"
                    )
                shape = (int(mtmd.mtmd_input_chunk_get_n_tokens(chunk)), self.width)
                yield np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(self._handle), shape=shape).copy()

    @contextmanager
    def _chunks(self, bitmap: Bitmap) -> Iterator[list[Any]]:
        """The chunks of a prompt that is ``bitmap`` alone."""
        if self._handle is None:
            raise EngineError("the projector is closed")
        native, chunks = _native(bitmap), mtmd.mtmd_input_chunks_init()
        try:
            part = ctypes.pointer(mtmd.mtmd_input_part(text=None, bitmap=native))
            parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(part)
            if mtmd.mtmd_tokenize_from_parts(self._handle, chunks, parts, 1, False):
                raise RequestError("an image or sound cannot be read: it is too small", param="messages")
            count = mtmd.mtmd_input_chunks_size(chunks)
            yield [mtmd.mtmd_input_chunks_get(chunks, place) for place in range(count)]
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(native)


def _open(path: Path, model: Any, threads: int, use_gpu: bool) -> Any:
    native_log.install()
    mtmd.mtmd_helper_log_set(native_log.callback, ctypes.c_void_p(0))
    native_log.forget_errors()
    params = mtmd.mtmd_context_params_default()
    params.n_threads = threads
    params.use_gpu = use_gpu
    params.print_timings = False
    params.warmup = False  # the first picture finds out the same
    handle = mtmd.mtmd_init_from_file(str(path).encode(), model, params)
    if not handle:
        reason = native_log.recent_errors() or "no reason given"
        raise BadModelFile(
            f"llama.cpp cannot load the projector {path.name}: {reason}. Get the one that was published with "
            "the model, or take it away to use the model for text"
        )
    return handle


def _native(bitmap: Bitmap) -> Any:
    """A bitmap of mtmd's, which copies what it is given; an outline has no data."""
    if isinstance(bitmap, Audio):
        samples = None if bitmap.samples is None else _pointer(bitmap.samples, ctypes.c_float)
        return mtmd.mtmd_bitmap_init_from_audio(bitmap.count, samples)
    pixels = None if bitmap.pixels is None else _pointer(bitmap.pixels, ctypes.c_uint8)
    return mtmd.mtmd_bitmap_init(bitmap.width, bitmap.height, pixels)


def _pointer(array: Any, kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


def _text(chunk: Any) -> tuple[int, ...]:
    count = ctypes.c_size_t()
    tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
    # Tokens that the vocabulary lacks are -1.
    return tuple(token for token in tokens[: count.value] if token >= 0) if tokens else ()


def _offsets(chunk: Any, size: int) -> Offsets:
    image = mtmd.mtmd_input_chunk_get_tokens_image(chunk)
    if not image:  # sound: one after the other in every direction
        return np.tile(np.arange(size, dtype=np.int32), (4, 1))
    found = (mtmd.mtmd_decoder_pos * size)()
    mtmd.mtmd_helper_image_get_decoder_pos(image, 0, found)
    places = np.frombuffer(found, dtype=np.int32).reshape(size, 4)
    return np.ascontiguousarray(places[:, [0, 2, 1, 3]].T)  # height goes before width
