"""Page query: which part of a list a client wants. Apart from `paging`, which needs SQLAlchemy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Order = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True)
class PageQuery:
    """The part of a list that a client wants: at most ``limit`` items behind the one called ``after``."""

    limit: int
    after: str | None = None
    order: Order = "desc"
