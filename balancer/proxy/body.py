"""Bodies of proxied answers: bytes as they come, their tokens counted, and whether they came to their end."""

from __future__ import annotations

import json
from array import array
from collections import deque
from collections.abc import Callable
from typing import Self

from balancer.call import ResumePoint, TokenMeter, WireFormat
from balancer.errors import BackendFailed, BadAnswer
from balancer.proxy.connection import Connection
from balancer.proxy.masking import Mask
from balancer.workers.protocol import END, LAST, TOGETHER, end_of_together, usage_from

# Bytes from the end of a body in which its usage is looked for.
EVENTS_KEPT = 16 * 1024
DOCUMENT_KEPT = 1024 * 1024
# Bytes at the begin and at the end of a stream in which events without text are looked for.
FIRST_READ = 512
LAST_KEPT = 1024
# An event that has more bytes is no answer of a worker.
MAX_EVENT = 4 * 1024 * 1024

Release = Callable[[Connection], None]


class _Body:
    """Bytes of one connection. ``release`` takes the connection when the body ended or was closed."""

    def __init__(self, connection: Connection, release: Release) -> None:
        self._connection: Connection | None = connection
        self._release = release
        self._failure: BackendFailed | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        # One coroutine a chunk and no more: this runs for every token of every stream.
        while (connection := self._connection) is not None:
            if self._failure is not None:
                self.close()
                raise self._failure
            if data := connection.take():
                if passed := self._pass(data):
                    return passed
            elif connection.is_over:
                self.close()
                if rest := self._end(connection):
                    return rest
            else:
                await connection.ready()
        raise StopAsyncIteration

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._release(connection)

    def _pass(self, data: bytes) -> bytes:
        """The part of ``data``, which just came, that the client gets now."""
        raise NotImplementedError

    def _end(self, connection: Connection) -> bytes:
        """What the client still gets when nothing more comes. Raises `BackendFailed` if that is too early."""
        raise NotImplementedError


class ProxiedBody(_Body):
    """An upstream's body, untouched.

    ``is_events``: server-sent events, which must end as ``wire`` says unless they are ``encoded``. The
    tokens of what is encoded are not counted. ``mask`` hides the upstream's key.
    """

    def __init__(
        self,
        connection: Connection,
        release: Release,
        *,
        wire: WireFormat,
        meter: TokenMeter,
        is_events: bool,
        encoded: bool,
        mask: Mask | None = None,
    ) -> None:
        super().__init__(connection, release)
        self._wire = wire
        self._meter = meter
        self._is_events = is_events
        self._is_readable = not encoded
        self._mask = mask
        self._is_missing = connection.status < 400  # an error may have no body
        self._has_begun = False
        self._estimated = 0  # bytes whose tokens were counted by events
        self._keep = 0 if encoded else EVENTS_KEPT if is_events else DOCUMENT_KEPT
        self._tail: deque[bytes] = deque()
        self._kept = 0
        meter.begin()

    def resume_point(self) -> ResumePoint | None:
        return None

    def _pass(self, data: bytes) -> bytes:
        if self._mask is not None and not (data := self._mask.feed(data)):
            return b""
        self._is_missing = False
        self._tail.append(data)
        self._kept += len(data)
        while self._kept - len(self._tail[0]) >= self._keep:
            self._kept -= len(self._tail.popleft())
            if not self._tail:
                break
        if self._is_events:
            self._count(data)
        return data

    def _count(self, data: bytes) -> None:
        """Tell the meter about the tokens in ``data``: exactly at first, where events have no text, then by
        events, as their text is not looked for in every one."""
        if self._has_begun:
            self._estimated += len(data)
            self._meter.tokens(data.count(b"\n") // self._wire.event_lines)
            return
        if not self._is_readable:
            self._meter.tokens(0)
            return
        tokens = position = 0
        while not self._has_begun and position < len(data):
            stop = data.find(b"\n\n", position + FIRST_READ) + 2
            if stop < 2:
                stop = len(data)
            tokens = self._wire.count_tokens(data[position:stop])
            self._has_begun = tokens > 0
            position = stop
        self._estimated += len(data) - position
        self._meter.tokens(tokens + data.count(b"\n", position) // self._wire.event_lines)

    def _end(self, connection: Connection) -> bytes:
        rest = b"" if self._mask is None else self._mask.rest()
        tail = b"".join((*self._tail, rest))
        if self._has_begun:
            # Of the last events some have no text, such as the one with the finish reason and the end mark.
            last = tail[max(0, len(tail) - self._estimated) :]
            if len(last) > LAST_KEPT:
                last = last[last.find(b"\n\n", len(last) - LAST_KEPT) + 2 :]
            self._meter.overcounted(
                max(0, last.count(b"\n") // self._wire.event_lines - self._wire.count_tokens(last))
            )
        if self._is_events and self._is_readable:
            # Whatever happens to a connection after its end mark, the answer is there.
            is_whole = self._wire.is_end(tail)
            error = connection.error or BadAnswer(f"{connection.peer} ended its stream without an end mark")
        else:
            is_whole = connection.ended
            error = connection.error or BackendFailed(f"{connection.peer} broke off")
        if not is_whole:
            raise error
        if self._is_missing and not rest:
            raise BadAnswer(f"{connection.peer} answered with nothing (status {connection.status})")
        if (usage := self._wire.find_usage(tail)) is not None:
            self._meter.told(usage)
        return rest


class WorkerBody(_Body):
    """The event stream of a worker, without the comments that are meant for its parent.

    Only whole events are passed on, so that another backend can go on after the last of them (see
    `balancer.workers.protocol`). ``begun`` is the point from which this answer was itself resumed.
    """

    def __init__(
        self, connection: Connection, release: Release, *, meter: TokenMeter, begun: ResumePoint | None
    ) -> None:
        super().__init__(connection, release)
        self._meter = meter
        self._begun = begun
        self._created: int | None = None
        self._token_ids = array("q", begun.token_ids if begun is not None else ())
        self._rest = b""
        self._has_passed = self._is_last = self._is_done = False
        meter.begin(len(self._token_ids))

    def resume_point(self) -> ResumePoint | None:
        if not self._has_passed:
            return self._begun
        if self._created is None:
            return None
        return ResumePoint(tuple(self._token_ids), self._created)

    def _pass(self, data: bytes) -> bytes:
        data = self._rest + data
        if self._is_last and END not in data:
            # Were part of it sent and the rest lost, whoever goes on would finish the answer a second time.
            return self._hold(data)
        end = data.rfind(b"\n\n") + 2
        if end < 2:
            return self._hold(data)
        self._rest = data[end:]
        events: list[bytes] = []
        position = 0
        while position < end and self._failure is None:
            if data.startswith(LAST, position):
                position += len(LAST)
                self._is_last = True
                if data.find(END, position) < 0:
                    self._rest = data[position:]
                    break
                continue
            if data.startswith(TOGETHER, position) and self._is_partial(data, position):
                break
            stop = data.index(b"\n\n", position)
            if passed := self._read(data[position:stop]):
                events += (passed, b"\n\n")
            position = stop + 2
        if len(self._rest) > MAX_EVENT:
            self._hold(self._rest)
        self._has_passed = self._has_passed or bool(events)
        return b"".join(events)

    def _is_partial(self, data: bytes, position: int) -> bool:
        """Whether of the events that belong together, from ``position`` on, some are yet to come."""
        try:
            is_partial = end_of_together(data, position) < 0
        except ValueError as error:
            self._failure = BackendFailed(f"a worker sent what makes no sense: {error}")
            return True
        if is_partial:
            self._rest = data[position:]
        return is_partial

    def _hold(self, data: bytes) -> bytes:
        self._rest = data
        if len(data) > MAX_EVENT:
            self._failure = BackendFailed(f"an event has more than {MAX_EVENT:,} bytes")
        return b""

    def _read(self, event: bytes) -> bytes:
        """``event`` without its comments; they count once all of it is understood."""
        token_ids: list[int] = []
        try:
            while event.startswith(b":"):
                comment, _, event = event.partition(b"\n")
                name, _, value = comment.partition(b" ")
                if name == b":tokens":
                    token_ids += map(int, value.split(b","))
                else:
                    self._take(name, value)
            self._token_ids.extend(token_ids)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            self._failure = BackendFailed(f"a worker sent what makes no sense: {error}")
            return b""
        if token_ids:
            self._meter.tokens(len(token_ids))
        return event

    def _take(self, name: bytes, value: bytes) -> None:
        if name == b":begin":
            begin = json.loads(value)
            self._meter.prompt(int(begin["prompt_tokens"]))
            self._created = begin.get("created")
        elif name == b":usage":
            self._meter.told(usage_from(value))
        elif name == b":end":
            self._is_done = True
        elif name == b":error":
            self._failure = BackendFailed(str(json.loads(value)))

    def _end(self, connection: Connection) -> bytes:
        # Whatever happens to a connection after the end mark, the answer is there.
        if not self._is_done:
            raise connection.error or _cut_off(connection)
        return b""


def _cut_off(connection: Connection) -> BackendFailed:
    return BackendFailed(f"{connection.peer} ended its stream without an end mark")
