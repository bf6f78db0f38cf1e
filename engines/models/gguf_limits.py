"""Limits of what a GGUF file may say of its model: beyond them llama.cpp does not fail, it aborts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

Numbers = int | float | bool | str | tuple[int | float | bool, ...] | None

# Keys, after the architecture's name, with the least and the most that is allowed: what sizes are multiplied
# with, and far more than any model has. llama.cpp has arrays of 512 layers, and of 512 experts.
_WHOLE: Mapping[str, tuple[int, int]] = {
    "block_count": (1, 512),
    "context_length": (0, 2**30),
    "embedding_length": (1, 2**20),
    "feed_forward_length": (0, 2**24),
    "vocab_size": (0, 2**24),
    "expert_count": (0, 512),
    "expert_used_count": (0, 512),
    "attention.head_count": (0, 2**14),
    "attention.head_count_kv": (0, 2**14),
    "attention.key_length": (0, 2**16),
    "attention.value_length": (0, 2**16),
    "rope.dimension_count": (0, 2**16),
    "full_attention_interval": (1, 512),  # it divides by it
    "ssm.conv_kernel": (0, 2**10),
    "ssm.inner_size": (0, 2**20),
    "ssm.state_size": (0, 2**20),
}
# Any other number of a model is an int in llama.cpp.
_ANY = (-(2**31), 2**31 - 1)
_EPSILON = "epsilon"
# What is not of the model but of its file, or of its texts: token ids of -1 are told as 2³² - 1.
_OTHERS = ("general.", "tokenizer.", "split.", "quantize.")


def excess(metadata: Mapping[str, Numbers]) -> str | None:
    """What in ``metadata`` no model can have, if there is anything."""
    for key, value in metadata.items():
        if not key.startswith(_OTHERS):
            for number in _numbers(value):
                if (problem := _excess(key, number)) is not None:
                    return problem
    return None


def _excess(key: str, number: int | float) -> str | None:
    if isinstance(number, float):
        if not math.isfinite(number):
            return f"{key} is {number}"
        return f"{key} is negative" if key.endswith(_EPSILON) and number < 0 else None
    least, most = _WHOLE.get(key.partition(".")[2], _ANY)
    if least <= number <= most:
        return None
    return f"{key} is {number:,}, not {least:,} to {most:,}"


def _numbers(value: Numbers) -> Iterator[int | float]:
    if isinstance(value, tuple):
        yield from value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value
