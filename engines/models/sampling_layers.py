"""The sampling of requests that do not say otherwise: the catalog's, over the model's own, over ours."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from engines.models.catalog import SamplingDefaults
from engines.models.sampling import Asked

logger = logging.getLogger("engines.models.sampling")

# As llama-server has them. Without a filter small models draw tokens that no sentence goes on with.
FALLBACK = SamplingDefaults(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)


def effective(name: str, entry: SamplingDefaults, own: Asked, options: Mapping[str, Any]) -> SamplingDefaults:
    """What counts for the model ``name``, which is here: what the catalog says, then what the model's ``own``
    files say, then `FALLBACK`, field by field."""
    if not (own or options or entry.model_fields_set):
        return FALLBACK  # most of a long catalog, which is merged on the event loop
    fallback = said(FALLBACK)
    if "speculative_config" in options:
        del fallback["min_p"]  # vLLM refuses it where a draft model guesses ahead
    return SamplingDefaults(**fallback | valid(name, own) | said(entry))


def said(defaults: SamplingDefaults) -> dict[str, Any]:
    """The fields of ``defaults`` that have a value."""
    return defaults.model_dump(exclude_none=True)


def valid(model: str, own: Asked) -> dict[str, Any]:
    """Those of ``own`` that a request could have too; of the others the log tells."""
    found: dict[str, Any] = {}
    for name, value in own.items():
        try:
            SamplingDefaults(**{name: value})
        except ValueError:
            logger.warning("model %s asks for %s %r, which no request may have", model, name, value)
        else:
            found[name] = value
    return found
