"""A call: a request as the balancer sees it, and the reply that a backend gives."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engines.base import Resident, Usage
from engines.models.model import adapter_name

# From this priority on nobody waits for a call: a batch's.
BACKGROUND_PRIORITY = 2**31


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a request is for, and the LoRA adapter of it, by their canonical names.

    ``asked_name`` is what the client wrote: `name`, the adapter's own name, an alias, in any letter case.
    """

    model: str
    adapter: str | None = None
    asked_name: str = ""

    @property
    def name(self) -> str:
        """The canonical name, by which workers know the target: ``model:adapter``, or the model's."""
        return self.model if self.adapter is None else adapter_name(self.model, self.adapter)

    @property
    def counted(self) -> tuple[str, ...]:
        """The names that its calls count for: the model's, and the adapter's."""
        return (self.model,) if self.adapter is None else (self.model, self.name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which upstreams may know it: other servers call adapters by their own names."""
        return (self.name,) if self.adapter is None else (self.name, self.adapter)


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The point at which an answer that broke off goes on: its tokens so far, and its creation (Unix)."""

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
        """The point from which another backend can go on with this body; None if nobody can."""
        ...


@dataclass(slots=True)
class Reply:
    """An answer on its way out: a status, headers, and bytes as they become ready."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: ByteStream


class TokenMeter(Protocol):
    """The count of a call's tokens, kept while its answer passes."""

    def begin(self, generated: int = 0) -> None:
        """A backend begins to answer, after ``generated`` tokens of backends before it."""
        ...

    def prompt(self, tokens: int) -> None:
        """The prompt has so many tokens."""
        ...

    def tokens(self, count: int) -> None:
        """``count`` more tokens came; 0: bytes came in which no token can be seen."""
        ...

    def overcounted(self, count: int) -> None:
        """``count`` of the tokens that were told were none."""
        ...

    def told(self, usage: Usage) -> None:
        """The whole answer says of itself what it took."""
        ...


class NoMeter:
    """A `TokenMeter` for calls that nobody counts."""

    def begin(self, generated: int = 0) -> None:
        pass

    def prompt(self, tokens: int) -> None:
        pass

    def tokens(self, count: int) -> None:
        pass

    def overcounted(self, count: int) -> None:
        pass

    def told(self, usage: Usage) -> None:
        pass


@dataclass(frozen=True, slots=True)
class WireFormat:
    """The facts of a wire API that a proxy must know to pass its answers on.

    ``is_end``: whether the last bytes of an event stream end it as they should. ``find_usage``: the token
    counts in the last bytes of an answer. ``count_tokens``: how many tokens a piece of an event stream
    carries, taking an event with text for one. An event has ``event_lines``, with the empty one behind it.
    ``ping`` is the event that says that a silent stream goes on, if there is one.
    """

    is_end: Callable[[bytes], bool]
    find_usage: Callable[[bytes], Usage | None]
    count_tokens: Callable[[bytes], int]
    event_lines: int = 2
    ping: bytes = b""


Run = Callable[[Resident, ResumePoint | None], Awaitable[Reply]]


@dataclass(slots=True)
class Call:
    """A request as the balancer sees it: where it may go, and how to run it there.

    Clients may choose ``request_id``; ``answer_id``, by which workers know the call, is its own.
    ``run`` serves it on an engine of this process, from a `ResumePoint` on if another backend began it;
    ``path``, ``headers`` and ``body`` are what a worker or an upstream is sent, and ``wire`` says how to
    read its answer. ``defaults`` are fields of the body that count where the client said nothing, and
    ``worker_fields`` those that workers get besides, which others would take for something else.
    ``resumable``: another backend may go on with its stream. ``conversation`` gives the text whose
    beginning decides what a prefix cache is worth. Calls of lower ``priority`` are served first.
    ``inline`` puts into the body what workers do not fetch themselves.
    ``keep_alive``: how many seconds the model stays loaded after this call (-1: for good); None leaves
    it at what the model has. ``hops`` are the ids of the servers that it came through.
    """

    request_id: str
    target: Target
    path: str
    body: bytes
    stream: bool
    wire: WireFormat
    answer_id: str = ""
    run: Run | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    worker_fields: Mapping[str, Any] = field(default_factory=dict)
    meter: TokenMeter = field(default_factory=NoMeter)
    resumable: bool = False
    priority: int = 0
    conversation: Callable[[], str] | None = None
    keep_alive: float | None = None
    hops: Sequence[str] = ()
    inline: Callable[[bytes], Awaitable[bytes]] | None = None

    def __post_init__(self) -> None:
        self.answer_id = self.answer_id or self.request_id

    @property
    def model(self) -> str:
        return self.target.model

    @property
    def is_background(self) -> bool:
        """Whether it is work in the background, see `Foreground`."""
        return self.priority >= BACKGROUND_PRIORITY

    def body_for(self, name: str) -> bytes:
        """The body that a backend gets which knows the target as ``name``: the client's own bytes, unless
        they call it otherwise or leave a default to the server."""
        if name == self.target.asked_name and not self.defaults:
            return self.body
        if name == self.target.asked_name and (body := spliced(self.body, self.defaults)) is not None:
            return body
        return json.dumps({**json.loads(self.body), "model": name, **self.defaults}).encode()

    def worker_body(self) -> bytes:
        """The body that a worker gets. It knows the model by its canonical name only."""
        body, more = self.body_for(self.target.name), self.worker_fields
        if not more:
            return body
        return spliced(body, more) or json.dumps({**json.loads(body), **more}).encode()


def spliced(body: bytes, fields: Mapping[str, Any]) -> bytes | None:
    """The JSON object ``body`` with ``fields`` in front, or None where it takes reading it to know how: a
    large body would be parsed and written again for a few numbers."""
    rest = body[1:].lstrip()
    if body[:1] != b"{" or rest[:1] != b'"' or any(b'"%b"' % name.encode() in body for name in fields):
        return None
    return json.dumps(dict(fields)).encode()[:-1] + b", " + rest
