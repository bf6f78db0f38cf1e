"""Sampling defaults of models: what a model's own files say, and what holds where nobody says anything."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engines.errors import BadModelFile
from engines.models import hf
from engines.models.sampling_defaults import SamplingDefaults

logger = logging.getLogger("engines.models.sampling")

GENERATION_CONFIG = "generation_config.json"

NOTHING = SamplingDefaults()

# As llama-server has them. Without a filter small models draw tokens that no sentence goes on with.
FALLBACK = SamplingDefaults(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)

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


def of_gguf(metadata: Mapping[str, Any], name: str) -> SamplingDefaults:
    """What the header of the file ``name`` says."""
    said = ((field, metadata.get(f"general.sampling.{key}")) for key, field in _OF_GGUF.items())
    return _valid(said, name)


def of_folder(path: Path) -> SamplingDefaults:
    """What ``generation_config.json`` says. One that cannot be read says nothing: no weights depend on it."""
    file = path / GENERATION_CONFIG
    if not file.is_file():
        return NOTHING
    try:
        config = hf.read_json(file)
    except BadModelFile as error:
        logger.warning("%s", error.message)
        return NOTHING
    return _valid(((name, config.get(name)) for name in _OF_FOLDER), str(file))


def effective(entry: SamplingDefaults, own: SamplingDefaults, options: Mapping[str, Any]) -> SamplingDefaults:
    """What counts for requests to a model that is here: what the catalog says, then the model's ``own``
    files, then `FALLBACK`, field by field."""
    fallback = said(FALLBACK)
    if "speculative_config" in options:
        del fallback["min_p"]  # vLLM refuses it where a draft model guesses ahead
    return SamplingDefaults(**fallback | said(own) | said(entry))


def said(defaults: SamplingDefaults) -> dict[str, Any]:
    """The fields of ``defaults`` that have a value."""
    return defaults.model_dump(exclude_none=True)


def _valid(values: Iterable[tuple[str, Any]], where: str) -> SamplingDefaults:
    """Those of ``values`` that a request could have too; of the others the log tells."""
    found: dict[str, Any] = {}
    for name, value in values:
        if value is None:
            continue
        if isinstance(value, float):
            value = float(f"{value:.6g}")  # files have 32 bits: 0.95 is 0.949999988 there
        try:
            SamplingDefaults(**{name: value})
        except ValidationError:
            logger.warning("%s: %s is %r, which no request may have: it is left out", where, name, value)
        else:
            found[name] = value
    return SamplingDefaults(**found)
