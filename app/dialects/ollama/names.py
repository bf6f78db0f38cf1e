"""Names of models, as Ollama's clients write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from app.inference.dialect import Resolve
from app.inference.targets import Resolved
from engines.errors import ModelFileNotFound

LATEST = ":latest"

T = TypeVar("T")


def found(name: str, find: Callable[[str], T]) -> tuple[str, T]:
    """What ``find`` finds under ``name``, or without the tag that clients add to it, and the name that it
    has. Raises `ModelFileNotFound`."""
    if name.endswith(LATEST):
        try:
            return name, find(name)
        except ModelFileNotFound:
            name = name.removesuffix(LATEST)
    return name, find(name)


def resolved_name(name: str, resolve: Resolve) -> tuple[str, Resolved]:
    """The name by which this server knows the model, and its target."""
    return found(name, lambda each: resolve(each))
