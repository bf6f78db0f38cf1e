"""Bodies of relayed answers: bytes as they come, and what has to be known of them at the end."""

from __future__ import annotations

import json
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from balancer.call import ResumePoint
from balancer.errors import BackendFailed
from balancer.proxy.connection import Connection
from balancer.proxy.usage import find_usage, usage_of
from engines.base import Usage

# Bytes from the end of a body in which its usage is looked for.
EVENTS_KEPT = 16 * 1024
DOCUMENT_KEPT = 1024 * 1024
# An event that has more bytes is no answer of one of our own.
MAX_EVENT = 4 * 1024 * 1024

DONE = b"data: [DONE]"
# In an answer's text the quotation marks would be escaped.
FINISH = b'"finish_reason":"'

Release = Callable[[Connection], None]


class ProxiedBody:
    """An upstream's body, untouched. ``release`` takes the connection when the body ended or was closed.

    ``is_events``: server-sent events, which must end with ``[DONE]`` unless they are ``encoded``.
    """

    def __init__(self, connection: Connection, release: Release, *, is_events: bool, encoded: bool) -> None:
        self._connection: Connection | None = connection
        self._release = release
        self._needs_done = is_events and not encoded
        self._keep = 0 if encoded else EVENTS_KEPT if is_events else DOCUMENT_KEPT
        self._last: deque[bytes] = deque()
        self._kept = 0
        self._is_whole = False
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
                self._end(connection)
            else:
                await connection.ready()
        raise StopAsyncIteration

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._release(connection)

    def resume_point(self) -> ResumePoint | None:
        return None

    def usage(self) -> Usage | None:
        return find_usage(b"".join(self._last)) if self._is_whole else None

    def _pass(self, data: bytes) -> bytes:
        """What the client gets of ``data``, which just came."""
        self._last.append(data)
        self._kept += len(data)
        while self._kept - len(self._last[0]) >= self._keep:
            self._kept -= len(self._last.popleft())
            if not self._last:
                break
        return data

    def _end(self, connection: Connection) -> None:
        """Nothing more comes. Raises `BackendFailed` if that is too early."""
        self.close()
        if self._needs_done:
            # Whatever happens to a connection after this, the answer is there.
            self._is_whole = self._has_done()
            error = connection.error or BackendFailed(f"{connection.peer} ended its stream without [DONE]")
        else:
            self._is_whole = connection.ended
            error = connection.error or BackendFailed(f"{connection.peer} broke off")
        if not self._is_whole:
            raise error

    def _has_done(self) -> bool:
        end = b"".join(self._last)[-256:].rstrip()
        return end.endswith((DONE, b"data:[DONE]"))


class WorkerBody(ProxiedBody):
    """The event stream of one of our own child servers, without the comments that are meant for us.

    ``:tokens 12,13`` in front of an event tells what tokens it is made of, ``:usage {…}`` the counts of the
    whole. Only whole events are passed on, so that another backend can go on after the last of them.
    ``created`` is what the answer says of its beginning, if it can be continued; ``begun`` is what it was
    itself continued from.
    """

    def __init__(
        self, connection: Connection, release: Release, *, created: int | None, begun: ResumePoint | None
    ) -> None:
        super().__init__(connection, release, is_events=True, encoded=False)
        self._created = created
        self._begun = begun
        self._token_ids = array("q", begun.token_ids if begun is not None else ())
        self._rest = b""
        self._usage: Usage | None = None
        self._has_passed = self._is_done = False

    def resume_point(self) -> ResumePoint | None:
        if not self._has_passed:
            return self._begun
        if self._created is None:
            return None
        return ResumePoint(tuple(self._token_ids), self._created)

    def usage(self) -> Usage | None:
        return self._usage if self._is_whole else None

    def _pass(self, data: bytes) -> bytes:
        data = self._rest + data
        end = data.rfind(b"\n\n") + 2
        if end < 2:
            end = 0
        self._rest = data[end:]
        if len(self._rest) > MAX_EVENT:
            self._failure = BackendFailed(f"an event has more than {MAX_EVENT:,} bytes")
        if not end:
            return b""
        events: list[bytes] = []
        parts = data[: end - 2].split(b"\n\n")
        for index, event in enumerate(parts):
            if FINISH in event and DONE not in parts[index:]:
                # Were it sent and the rest lost, whoever goes on would finish the answer a second time.
                self._rest = b"\n\n".join((*parts[index:], self._rest))
                break
            try:
                passed = self._read(event)
            except (ValueError, OverflowError, RecursionError, BackendFailed) as error:
                self._failure = _failure(error)
                break
            if passed:
                events += (passed, b"\n\n")
        self._has_passed = self._has_passed or bool(events)
        return b"".join(events)

    def _read(self, event: bytes) -> bytes:
        """``event`` as the client gets it. Raises `BackendFailed` if it says that the answer failed."""
        token_ids: list[int] = []
        while event.startswith(b":"):
            comment, _, event = event.partition(b"\n")
            if comment.startswith(b":tokens "):
                token_ids += map(int, comment[8:].split(b","))
            elif comment.startswith(b":usage "):
                self._usage = usage_of(json.loads(comment[7:]))
        if event.startswith(b'data: {"error"'):
            raise BackendFailed(_told(json.loads(event[6:])))
        self._token_ids.extend(token_ids)
        self._is_done = self._is_done or event == DONE
        return event

    def _has_done(self) -> bool:
        return self._is_done


def _failure(error: Exception) -> BackendFailed:
    if isinstance(error, BackendFailed):
        return error
    return BackendFailed(f"a child server sent what makes no sense: {error}")


def _told(document: Any) -> str:
    """The message in an error event."""
    error = document.get("error")
    return str(error.get("message") if isinstance(error, dict) else error)
