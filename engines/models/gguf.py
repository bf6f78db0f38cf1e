"""Reads the header of a GGUF file: what the model is, and whether the file is whole.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Files come from anywhere, so every
length is checked before it is used, the work is bounded, and whatever is wrong is a `BadModelFile`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from engines.errors import BadModelFile, ModelFileNotFound
from engines.models.gguf_types import FILE_TYPES, TENSOR_TYPES

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
MAX_PARTS = 1024

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_PART = re.compile(r"^(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")

Value = int | float | bool | str | tuple[int | float | bool, ...] | None


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A model's metadata. ``tensor_bytes`` is the size of its weights, in all of its parts.

    ``metadata`` lacks (has None for) long arrays, such as the vocabulary.
    """

    metadata: Mapping[str, Value]
    tensor_bytes: int

    @property
    def architecture(self) -> str:
        return self._text("general.architecture")

    @property
    def context_length(self) -> int:
        """Tokens the model was trained for; 0 if the file does not say."""
        return self._number("context_length")

    @property
    def block_count(self) -> int:
        return self._number("block_count")

    @property
    def embedding_length(self) -> int:
        return self._number("embedding_length")

    @property
    def head_counts(self) -> tuple[int, ...]:
        """Attention heads of each layer."""
        return self._each_layer("attention.head_count")

    @property
    def kv_head_counts(self) -> tuple[int, ...]:
        """Key and value heads of each layer; 0 in layers that keep no KV cache."""
        return self._each_layer("attention.head_count_kv") or self.head_counts

    @property
    def key_length(self) -> int:
        """Numbers in the key of one head."""
        return self._number("attention.key_length") or self._default_head_length()

    @property
    def value_length(self) -> int:
        return self._number("attention.value_length") or self._default_head_length()

    @property
    def quantization(self) -> str | None:
        """What most weights are in, such as ``Q4_K_M``."""
        number = self.metadata.get("general.file_type")
        return FILE_TYPES.get(number) if isinstance(number, int) else None

    @property
    def has_chat_template(self) -> bool:
        return bool(self.metadata.get("tokenizer.chat_template"))

    def kv_bytes_per_token(self, element_bytes: int = 2) -> int:
        """What one token takes in the KV cache, in bytes; by default in 16 bits a number.

        Layers with a sliding window count in full, so this is an upper bound for them.
        """
        heads = self.kv_head_counts
        interval = self._number("full_attention_interval")
        if interval > 1 and len(set(heads)) == 1:  # only every so many layers keep keys and values
            heads = heads[: len(heads) // interval]
        return sum(heads) * (self.key_length + self.value_length) * element_bytes

    def _default_head_length(self) -> int:
        most_heads = max(self.head_counts, default=0)
        return self.embedding_length // most_heads if most_heads else 0

    def _each_layer(self, key: str) -> tuple[int, ...]:
        value = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(value, tuple):
            return tuple(max(0, number) for number in value if isinstance(number, int))
        return (self._number(key),) * min(self.block_count, MAX_KEPT_NUMBERS) if self._number(key) else ()

    def _number(self, key: str) -> int:
        value = self.metadata.get(f"{self.architecture}.{key}")
        return max(0, value) if isinstance(value, int) else 0

    def _text(self, key: str) -> str:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""


def read_header(path: Path) -> GgufHeader:
    """The header of the model in ``path``, and of its other parts if it has several.

    Raises `ModelFileNotFound` if a file is missing, and `BadModelFile` if one is no GGUF file, is damaged,
    or ends before its last tensor does.
    """
    first = _read_part(path)
    count = first.metadata.get("split.count")
    if not isinstance(count, int) or count <= 1:
        return first
    rest = (_read_part(part) for part in _later_parts(path, count))
    return GgufHeader(first.metadata, first.tensor_bytes + sum(part.tensor_bytes for part in rest))


def part_paths(path: Path) -> tuple[Path, ...]:
    """All files of the model whose first one is ``path``, by its name; they need not exist."""
    match = _PART.match(path.stem)
    count = int(match["count"]) if match else 1
    if match is None or int(match["number"]) != 1 or not 1 < count <= MAX_PARTS:
        return (path,)
    names = (f"{match['prefix']}-{n:05}-of-{count:05}{path.suffix}" for n in range(1, count + 1))
    return tuple(path.with_name(name) for name in names)


def _later_parts(path: Path, count: int) -> tuple[Path, ...]:
    parts = part_paths(path)
    if len(parts) != count:
        raise BadModelFile(
            f"{path.name} is one of {count} files of a model: give the one named …-00001-of-{count:05}.gguf, "
            "and keep the names they were published with"
        )
    return parts[1:]


def _read_part(path: Path) -> GgufHeader:
    if not path.is_file():
        raise ModelFileNotFound(f"there is no model file {path}")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _Reader(file, size, path.name).read()
    except OSError as error:
        raise BadModelFile(f"{path.name} cannot be read: {error.strerror or error}") from error


class _Reader:
    """Reads forward through one file; never past its end or `MAX_HEADER_BYTES`."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self._size = size
        self._name = name
        self._position = 0
        self._strings_left = MAX_STRINGS

    def read(self) -> GgufHeader:
        if self._size < len(MAGIC) or self._take(len(MAGIC)) != MAGIC:
            raise BadModelFile(f"{self._name} is not a GGUF file: llama.cpp loads nothing else")
        version = self._number("I")
        if version not in VERSIONS:
            big_endian = version & 0xFFFF == 0
            what = "is for big-endian machines" if big_endian else f"has GGUF version {version}"
            raise BadModelFile(f"{self._name} {what}: get a file of version 3, little-endian")
        tensors = self._count("Q", MAX_TENSORS, "tensors")
        keys = self._count("Q", MAX_KEYS, "metadata keys")
        metadata = {self._string(): self._value() for _ in range(keys)}
        sizes = [self._tensor() for _ in range(tensors)]
        self._check_whole(metadata, sizes)
        return GgufHeader(metadata, sum(size for _, size in sizes))

    def _check_whole(self, metadata: Mapping[str, Value], tensors: list[tuple[int, int]]) -> None:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
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
        self._string()
        dimensions = self._count("I", MAX_DIMENSIONS, "dimensions of a tensor")
        elements = prod(self._number("Q") for _ in range(dimensions))
        per_block, block_bytes = TENSOR_TYPES.get(self._number("I"), (1, 0))
        return self._number("Q"), elements // per_block * block_bytes

    def _value(self) -> Value:
        kind = self._number("I")
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
            self._use_strings(length)
            for _ in range(length):
                self._skip(self._number("Q"))
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
