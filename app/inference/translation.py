"""Translation: requests of an API that no engine answers in, and the way of their answers back.

Such a request becomes one of a dialect of ours, which any backend answers; what comes of it is rewritten as
it passes. So workers and upstreams need not know the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app.inference.dialect import Dialect
from app.schemas.unknown_fields import UnknownField
from balancer.proxy.headers import Header


class Translation(Protocol):
    """The way of one answer back, for one request."""

    def begin(self, status: int, headers: list[Header]) -> list[Header]:
        """The headers that the client gets for those of the answer. With an error's ``status``, what follows
        is an upstream's own error."""
        ...

    def feed(self, data: bytes) -> bytes:
        """What the client gets of ``data`` by now. Raises `BadAnswer` for what cannot be told."""
        ...

    def end(self) -> bytes:
        """The rest, once the answer came to its end. Raises `BadAnswer` if it is none."""
        ...

    def error(self, error: Exception) -> bytes:
        """The end of an answer that failed when a part of it had been sent; nothing where it cannot be
        told, so that the connection must be cut."""
        ...


@dataclass(frozen=True, slots=True)
class Translated:
    """A request as ``dialect`` reads it, whose route is ``path``, and the way of its ``answer`` back.

    ``unknown`` are fields of the original that do not count.
    """

    dialect: Dialect[Any]
    path: str
    document: Mapping[str, Any]
    answer: Translation
    unknown: tuple[UnknownField, ...] = ()
