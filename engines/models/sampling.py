"""Sampling that a model's own files ask for, by the names of requests' fields, as it stands there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.errors import BadModelFile
from engines.models import hf

logger = logging.getLogger("engines.models.sampling")

GENERATION_CONFIG = "generation_config.json"

# llama.cpp's keys, after "general.sampling.", and what requests call them.
_OF_GGUF = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
# Those that vLLM takes from there too. Like vLLM this leaves `do_sample` aside: it is about the library that
# wrote the file, whose own default it is.
_OF_FOLDER = (
    *("temperature", "top_k", "top_p", "min_p"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)

Asked = Mapping[str, Any]


def of_gguf(metadata: Mapping[str, Any]) -> Asked:
    """What the header of a GGUF file says."""
    values = {field: metadata.get(f"general.sampling.{key}") for key, field in _OF_GGUF.items()}
    # Files have 32 bits: 0.95 is 0.949999988 there.
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in values.items()
        if value is not None
    }


def of_folder(path: Path) -> Asked:
    """What ``generation_config.json`` says. One that cannot be read says nothing: no weights depend on it."""
    file = path / GENERATION_CONFIG
    if not file.is_file():
        return {}
    try:
        config = hf.read_json(file)
    except BadModelFile as error:
        logger.warning("%s", error.message)
        return {}
    return {name: config[name] for name in _OF_FOLDER if config.get(name) is not None}
