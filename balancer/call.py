"""A call: a request as the balancer sees it, and the reply that a backend gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engines.base import Engine, Usage


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where an answer that broke off goes on: the tokens generated so far, and when it was created (Unix)."""

    token_ids: tuple[int, ...]
    created: int


class ByteStream(Protocol):
    """The body of a reply.

    ``close`` is synchronous and idempotent, and frees what produces the bytes. Iteration raises
    `EngineError` or `BackendFailed` if the body broke off.
    """

    def __aiter__(self) -> ByteStream: ...

    async def __anext__(self) -> bytes: ...

    def close(self) -> None: ...

    def resume_point(self) -> ResumePoint | None:
        """What another backend needs to go on where this body is now; None if nobody can."""
        ...

    def usage(self) -> Usage | None:
        """Tokens, as a relayed body told them; None if it did not, or if its maker keeps the record."""
        ...


@dataclass(slots=True)
class Reply:
    """An answer on its way out: a status, headers, and bytes as they become ready."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: ByteStream


Run = Callable[[Engine, ResumePoint | None], Awaitable[Reply]]


@dataclass(slots=True)
class Call:
    """A request as the balancer sees it: where it may go, and how to run it there.

    ``run`` serves it on an engine of this process, from a `ResumePoint` if it was begun elsewhere; ``path``,
    ``headers`` and ``body`` are what a remote one is sent. So the balancer needs no wire schema.
    ``resumable``: another backend may go on with its stream. ``conversation`` gives the text whose
    beginning decides what a prefix cache is worth. Calls of lower ``priority`` are served first.
    ``keep_alive``: how many seconds the model stays loaded after this call (-1: for good); None leaves
    it at what the model has.
    """

    request_id: str
    model: str
    path: str
    body: bytes
    stream: bool
    run: Run | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()
    resumable: bool = False
    priority: int = 0
    conversation: Callable[[], str] | None = None
    keep_alive: float | None = None
