"""The reader of one GGUF file's header.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Files come from anywhere, so every
length is checked before it is used, the work is bounded, and whatever is wrong is a `BadModelFile`.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from math import prod
from typing import BinaryIO, NamedTuple

from engines.errors import BadModelFile
from engines.models.gguf_limits import excess
from engines.models.gguf_types import TENSOR_TYPES
from engines.models.imposters import imposter

MAGIC = b"GGUF"
VERSIONS = (2, 3)

# Far more than any real model needs: the largest vocabularies take about 30 MiB and a million strings.
MAX_HEADER_BYTES = 256 * 2**20
MAX_STRINGS = 2 * 2**20
MAX_KEYS = 2**16
MAX_TENSORS = 2**17
MAX_DIMENSIONS = 8
MAX_TEXT = 2**20
# Numbers of longer arrays are skipped; the arrays of interest have one number a layer.
MAX_KEPT_NUMBERS = 4096
MAX_ALIGNMENT = 2**20
# Bytes by which it shows what a file is.
_BEGINNING = 64
# Texts are passed over in pieces of so many bytes.
_CHUNK = 2**20

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

Value = int | float | bool | str | tuple[int | float | bool, ...] | None


class TensorEntry(NamedTuple):
    """A tensor by its dimensions, the contiguous one first, and the number of its type."""

    shape: tuple[int, ...]
    kind: int


class GgufReader:
    """Reads forward through one file; never past its end or `MAX_HEADER_BYTES`.

    Once it is read, ``kinds`` are the types of the metadata's values by number, ``tensors`` what it has.
    """

    def __init__(self, file: BinaryIO, size: int, name: str, wanted: Collection[bytes] = ()) -> None:
        """``found`` are then those of the ``wanted`` texts that were passed over, as the vocabulary is."""
        self._file = file
        self._size = size
        self._name = name
        self._wanted = wanted
        self._position = 0
        self._strings_left = MAX_STRINGS
        self.found: set[bytes] = set()
        self.kinds: dict[str, int] = {}
        self.tensors: dict[str, TensorEntry] = {}

    def read(self) -> tuple[Mapping[str, Value], int, int]:
        """The metadata, the size of the tensors in bytes, and their number."""
        beginning = self._file.read(_BEGINNING)
        self._file.seek(0)
        if not beginning.startswith(MAGIC):
            what = imposter(beginning) or "is not a GGUF file: llama.cpp loads nothing else"
            raise BadModelFile(f"{self._name} {what}")
        self._take(len(MAGIC))
        version = self._number("I")
        if version not in VERSIONS:
            big_endian = version & 0xFFFF == 0
            what = "is for big-endian machines" if big_endian else f"has GGUF version {version}"
            raise BadModelFile(f"{self._name} {what}: get a file of version 3, little-endian")
        tensors = self._count("Q", MAX_TENSORS, "tensors")
        keys = self._count("Q", MAX_KEYS, "metadata keys")
        metadata = dict(self._pair() for _ in range(keys))
        if (problem := excess(metadata)) is not None:
            raise self._damaged(problem)
        sizes = [self._tensor() for _ in range(tensors)]
        self._check_whole(metadata, sizes)
        return metadata, sum(size for _, size in sizes), len(sizes)

    def _check_whole(self, metadata: Mapping[str, Value], tensors: list[tuple[int, int]]) -> None:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT:
            raise self._damaged("its alignment is not a number of bytes")
        start = -(-self._position // alignment) * alignment
        end = max((start + offset + size for offset, size in tensors), default=0)
        if end > self._size:
            raise BadModelFile(
                f"{self._name} is cut off: {self._size:,} of at least {end:,} bytes are there. "
                "Download it again"
            )

    def _tensor(self) -> tuple[int, int]:
        """Offset and size of a tensor's data in bytes; the size is 0 for a type that is not known here."""
        name = self._string()
        dimensions = self._count("I", MAX_DIMENSIONS, "dimensions of a tensor")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        kind = self._number("I")
        self.tensors[name] = TensorEntry(shape, kind)
        per_block, block_bytes = TENSOR_TYPES.get(kind, (1, 0))
        return self._number("Q"), prod(shape) // per_block * block_bytes

    def _pair(self) -> tuple[str, Value]:
        key, kind = self._string(), self._number("I")
        self.kinds[key] = kind
        return key, self._value(kind)

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        raise self._damaged(f"a value has the unknown type {kind}")

    def _array(self) -> Value:
        kind, length = self._number("I"), self._number("Q")
        if kind == _STRING:
            self._skip_strings(length)
            return None
        if kind not in _SCALARS:
            raise self._damaged(f"an array is of the unknown type {kind}")
        form = f"<{length}{_SCALARS[kind]}" if length <= MAX_KEPT_NUMBERS else ""
        if not form:
            self._skip(length * struct.calcsize("<" + _SCALARS[kind]))
            return None
        return struct.unpack(form, self._take(struct.calcsize(form)))

    def _string(self) -> str:
        self._use_strings(1)
        length = self._number("Q")
        if length > MAX_TEXT:
            raise self._damaged(f"a text is said to be {length:,} bytes long")
        return self._take(length).decode("utf-8", "replace")

    def _skip_strings(self, count: int) -> None:
        """There are hundreds of thousands in a vocabulary: a call for each would take most of a second."""
        self._use_strings(count)
        length_at = struct.Struct("<Q").unpack_from
        wanted = {struct.pack("<Q", len(text)) + text: text for text in self._wanted}
        while count:
            piece = self._file.read(_CHUNK)
            at, last = 0, len(piece) - 8
            if last < 0:
                raise self._cut_off()
            while count and at <= last:
                at += 8 + length_at(piece, at)[0]
                count -= 1
            self.found.update(text for stored, text in wanted.items() if stored in piece)
            self._advance(at)
            self._file.seek(self._position)

    def _use_strings(self, count: int) -> None:
        self._strings_left -= count
        if self._strings_left < 0:
            raise self._damaged("it has millions of texts")

    def _count(self, form: str, most: int, what: str) -> int:
        count = self._number(form)
        if count > most:
            raise self._damaged(f"it is said to have {count:,} {what}")
        return count

    def _number(self, form: str) -> int:
        return int(self._scalar(form))

    def _scalar(self, form: str) -> int | float | bool:
        form = "<" + form
        value: int | float | bool = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return value

    def _take(self, count: int) -> bytes:
        self._advance(count)
        taken = self._file.read(count)
        if len(taken) != count:
            raise self._cut_off()
        return taken

    def _skip(self, count: int) -> None:
        self._advance(count)
        self._file.seek(count, 1)

    def _advance(self, count: int) -> None:
        self._position += count
        if self._position > self._size:
            raise self._cut_off()
        if self._position > MAX_HEADER_BYTES:
            raise self._damaged(f"its header is larger than {MAX_HEADER_BYTES:,} bytes")

    def _cut_off(self) -> BadModelFile:
        return BadModelFile(
            f"{self._name} is cut off or damaged: it ends within its header. Download it again"
        )

    def _damaged(self, how: str) -> BadModelFile:
        return BadModelFile(f"{self._name} is damaged: {how}. Download it again")
