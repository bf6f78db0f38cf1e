"""Templates of rerankers: how a query and a document become a prompt."""

from __future__ import annotations

import re
from typing import Any

NAMES = ("rerank", "reranker")
"""What llama.cpp and transformers call the template of a model that has several."""

QUERY, DOCUMENT = "{query}", "{document}"
# Templates of sentence-transformers and vLLM look for messages of these roles.
_ROLES = tuple(re.compile(rf"""["']{role}["']""") for role in ("query", "document"))


def is_plain(source: str) -> bool:
    """Whether it is a text with places for the two; else it is a chat template."""
    return QUERY in source and DOCUMENT in source


def is_for_pairs(source: str | None) -> bool:
    """Whether a template takes a query and a document."""
    return source is not None and (is_plain(source) or all(role.search(source) for role in _ROLES))


def template_of(templates: Any, *names: str) -> str | None:
    """A model may have several templates by name: the first one of ``names`` that there is."""
    found = [templates.get(name) for name in names] if isinstance(templates, dict) else [templates]
    return next((each for each in found if isinstance(each, str) and each), None)
