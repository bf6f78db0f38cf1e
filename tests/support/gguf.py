"""GGUF files that are made up."""

from __future__ import annotations

import json
import struct
from typing import Any

LLAMA = {
    "general.architecture": "llama",
    "general.file_type": 15,
    "llama.context_length": 4096,
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
}
F32, Q4_0, UNKNOWN = 0, 2, 999
Tensor = tuple[str, tuple[int, ...], int, int]
TENSORS: tuple[Tensor, ...] = (("a", (32, 2), F32, 0), ("b", (32, 4), Q4_0, 256))
DATA = 256 + 4 * 18


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def encode(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        strings = bool(value) and isinstance(value[0], str)
        items = b"".join(text(v) if strings else struct.pack("<i", v) for v in value)
        return struct.pack("<IIQ", 9, 8 if strings else 5, len(value)) + items
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return struct.pack("<II", 4, value)


def header(
    metadata: dict[str, Any], tensors: tuple[Tensor, ...] = TENSORS, version: int = 3, alignment: int = 32
) -> bytes:
    raw = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    raw += b"".join(text(key) + encode(value) for key, value in metadata.items())
    for name, shape, kind, offset in tensors:
        raw += (
            text(name)
            + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
            + struct.pack("<IQ", kind, offset)
        )
    return raw + bytes(-len(raw) % alignment)


FILE = header(LLAMA | {"tokenizer.chat_template": "x"}) + bytes(DATA)
"""A whole model, as far as one can tell without loading it."""


def safetensors(data: int = 0, **metadata: str) -> bytes:
    """The header of a file in safetensors' format with one tensor of ``data`` bytes, which come after it."""
    tensor = {"w": {"dtype": "U8", "shape": [data], "data_offsets": [0, data]}}
    raw = json.dumps(({"__metadata__": metadata} if metadata else {}) | tensor).encode()
    return struct.pack("<Q", len(raw)) + raw


SAFETENSORS = safetensors()
"""A whole model in safetensors' format."""


def file_of(name: str) -> bytes:
    """What a model's file called ``name`` may hold."""
    for end, content in ((".gguf", FILE), (".safetensors", SAFETENSORS), (".json", b"{}")):
        if name.endswith(end):
            return content
    return b"x"
