"""Nesting: how deep the lists and objects of a request's JSON may lie in one another."""

from __future__ import annotations

from typing import Any

# Schemas of tools nest deepest, to a few dozen levels. Python's own limit is too late: what can just be read
# cannot be written again, further down the stack, for an upstream that knows the model by another name.
MAX_DEPTH = 200

_CONTAINERS = (list, dict)


def is_too_deep(document: Any, body: bytes) -> bool:
    """Whether ``document``, which was read from ``body``, has more than `MAX_DEPTH` levels."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    level = [document] if isinstance(document, _CONTAINERS) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, _CONTAINERS)
        ]
    return bool(level)
