"""Mistakes in a catalog, and the lines where they stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.errors import EngineError

if TYPE_CHECKING:
    from engines.models.catalog.content import Catalog


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake. ``line`` counts from 1; 0 where the mistake has no place."""

    line: int
    text: str

    def shown(self, file: str) -> str:
        return f"{file}:{self.line}: {self.text}" if self.line else f"{file}: {self.text}"


class CatalogError(EngineError):
    """The catalog has mistakes; the message has a line for each of its ``problems``.

    ``usable`` is the catalog without what is wrong, if something is left of it.
    """

    def __init__(self, file: str, problems: Iterable[Problem], usable: Catalog | None = None) -> None:
        self.usable = usable
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(problem.shown(file) for problem in self.problems))
