"""The header of a GGUF file: what the model is, and whether the file is whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engines.errors import BadModelFile, ModelFileNotFound
from engines.models.gguf_reader import MAX_KEPT_NUMBERS, GgufReader, TensorEntry, Value
from engines.models.gguf_types import FILE_TYPES
from engines.text.tokens import fim

_PART = re.compile(r"^(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")

MAX_PARTS = 1024
# Files that name the tokens for filling in the middle have this key.
_FIM_KEY = "tokenizer.ggml.fim_pre_token_id"

# Values of general.type, less "model".
_OTHER_KINDS = {
    "adapter": "is a LoRA adapter, which changes another model and is none itself: name it under `adapters`"
    " of that model in models.yaml",
    "mmproj": "is a projector for images or sound, which belongs to the model beside it and is none itself",
    "imatrix": "is an importance matrix, a help for quantising, and no model",
}


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A model's metadata. ``tensor_bytes`` is the size of its ``tensors``, the weights, in all of its parts.

    ``has_fim``: its vocabulary has tokens for filling in the middle. ``metadata`` lacks (has None for) long
    arrays, such as the vocabulary.
    """

    metadata: Mapping[str, Value]
    tensor_bytes: int
    tensors: int
    has_fim: bool = False

    @property
    def architecture(self) -> str:
        return self._text("general.architecture")

    @property
    def size_label(self) -> str:
        """How many parameters it has, as its maker writes it: ``7B``; empty if the file does not say."""
        return self._text("general.size_label")

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
    def output_length(self) -> int:
        """Numbers in the state of a token as it comes out."""
        return self._number("embedding_length_out") or self.embedding_length

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
    ends before its last tensor does, or holds what only belongs to a model.
    """
    first = _read_part(path)
    if (other := _other_kind(first.metadata)) is not None:
        raise BadModelFile(f"{path.name} {other}")
    count = first.metadata.get("split.count")
    if isinstance(count, int) and count > 1:
        parts = [first, *map(_read_part, _later_parts(path, count))]
        sizes, counts = (part.tensor_bytes for part in parts), (part.tensors for part in parts)
        first = GgufHeader(first.metadata, sum(sizes), sum(counts), first.has_fim)
    if not first.tensors:
        raise BadModelFile(f"{path.name} has no weights, only a vocabulary: get the model itself")
    return first


def _other_kind(metadata: Mapping[str, Value]) -> str | None:
    """What a file with this ``metadata`` is, if it is no model that can be loaded by itself."""
    number, count = metadata.get("split.no"), metadata.get("split.count")
    if isinstance(number, int) and number > 0:
        return f"is part {number + 1} of a model of {count} files: put all of them here, the first is loaded"
    kind = metadata.get("general.type")
    if metadata.get("general.architecture") == "clip":
        kind = "mmproj"
    return _OTHER_KINDS.get(kind) if isinstance(kind, str) else None


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


@dataclass(frozen=True, slots=True)
class GgufTable:
    """The tensors of a file and all its metadata; ``kinds`` are the types of its values, by number."""

    metadata: Mapping[str, Value]
    kinds: Mapping[str, int]
    tensors: Mapping[str, TensorEntry]


def read_table(path: Path) -> GgufTable:
    """The table of any GGUF file; of a model of several parts it has all their tensors. Raises as
    `read_header`."""
    reader, (metadata, *_) = _read(path)
    tensors = dict(reader.tensors)
    for part in part_paths(path)[1:]:
        tensors |= _read(part)[0].tensors
    return GgufTable(metadata, reader.kinds, tensors)


def _read_part(path: Path) -> GgufHeader:
    reader, (metadata, tensor_bytes, tensors) = _read(path)
    names = {text.decode() for text in reader.found}
    return GgufHeader(metadata, tensor_bytes, tensors, _FIM_KEY in metadata or fim.has_fim(names))


def _read(path: Path) -> tuple[GgufReader, tuple[Mapping[str, Value], int, int]]:
    if not path.is_file():
        raise ModelFileNotFound(f"there is no model file {path}")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            reader = GgufReader(file, size, path.name, [name.encode() for name in fim.NAMES])
            return reader, reader.read()
    except OSError as error:
        raise BadModelFile(f"{path.name} cannot be read: {error.strerror or error}") from error
