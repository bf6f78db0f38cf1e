"""What the catalog says of a model's sampling, for requests that say nothing."""

from __future__ import annotations

from typing import Any, TypeVar

from app.schemas.common import SamplingFields
from engines.models.catalog import SamplingDefaults

Body = TypeVar("Body", bound=SamplingFields)

# A limit has two names in chat requests: setting either is saying something.
_LIMITS = frozenset({"max_tokens", "max_completion_tokens"})


def with_defaults(body: Body, defaults: SamplingDefaults) -> Body:
    """``body``, where the client left a field out, as ``defaults`` says."""
    if not defaults.model_fields_set:
        return body
    given = body.model_fields_set
    update: dict[str, Any] = {}
    for name in defaults.model_fields_set - given:
        value = getattr(defaults, name)
        if value is None or (name == "max_tokens" and given & _LIMITS):
            continue
        update[name] = list(value) if name == "stop" else value
    return body.model_copy(update=update) if update else body
