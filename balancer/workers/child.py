"""Child process of a worker, and its pipes: the life line in, messages and log lines out."""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import cast

from balancer.workers.logs import LONGEST_LINE, Lines, LogRelay
from balancer.workers.protocol import Message, Start, WorkerSpec, error_from, info_from
from engines.base import EngineInfo
from engines.errors import ModelLoadError
from engines.machine.child_environment import child_environment
from engines.machine.job_process import describe_exit

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_LONGEST_MESSAGE = 2**20
# A crash in ggml would start a debugger, which holds the process up for as long as it likes.
_ENVIRONMENT = {"GGML_NO_BACKTRACE": "1"}
# After the process ended, so many seconds are left to read what it wrote: a process that it started and
# that left its group may hold the pipes open.
_DRAIN_SECONDS = 1.0


class Child(asyncio.SubprocessProtocol):
    """A worker's process. It ends when its stdin does, so it never outlives this one.

    The process leads a session: Ctrl-C is for the server, which then ends its children. Processes that it
    started itself are in its group, which is killed when it ends. ``exited`` gets the exit status at once;
    ``ended`` is done when also all that it wrote was read.
    """

    pid: int
    _transport: asyncio.SubprocessTransport

    def __init__(self, log: LogRelay, report: Callable[[str, float], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.failure: ModelLoadError | None = None
        self._log = log
        self._report = report
        self._decided: asyncio.Future[EngineInfo | None] = self._loop.create_future()
        self._open = {_STDOUT, _STDERR}
        self._messages = Lines(_LONGEST_MESSAGE)
        self._lines = Lines(LONGEST_LINE)

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        spec: WorkerSpec,
        listener: socket.socket,
        log: LogRelay,
        report: Callable[[str, float], None],
    ) -> Child:
        """Start ``command``, which gets ``listener``, a `Start` and no secret of ours. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        executing = loop.subprocess_exec(
            lambda: cls(log, report),
            *command,
            env=child_environment({**_ENVIRONMENT, **spec.environment}),
            start_new_session=True,
            pass_fds=(listener.fileno(),),
        )
        # In a context of its own, or the child's log lines would carry the id of the request that made
        # the model load.
        spawning = loop.create_task(executing, context=contextvars.Context())
        try:
            _, child = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            _, child = await spawning  # cancelled itself, it might leave a process that nobody reaps
            child.kill()
            await child.ended
            raise
        child._write(Start(spec, listener.fileno()).to_line())
        return child

    async def loaded(self) -> EngineInfo:
        """Wait until the child can serve. Raises `ModelLoadError` with what it says, or said last."""
        await asyncio.wait((self._decided, self.ended), return_when=asyncio.FIRST_COMPLETED)
        info = self._decided.result() if self._decided.done() else None
        if info is None:
            raise self.failure or ModelLoadError(self.epitaph)
        self._log.forget()
        return info

    @property
    def epitaph(self) -> str:
        """How the process ended, and why, as far as it said."""
        if not self.exited.done():
            return ""
        how = describe_exit(self.exited.result())
        why = self.failure.message if self.failure else self._log.last_words
        return f"{how}: {why}" if why else how

    def terminate(self) -> None:
        """Ask the process to end after the answers that it is giving."""
        if not self.exited.done():
            # Not by the transport: asking whether the process lives, it might reap it unseen.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the process and all that it started."""
        if not self.exited.done():
            self._kill_group()

    # -- what asyncio calls --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Casts, because uvloop's transports are not of asyncio's classes.
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._transport.get_pid()
        self._log.labels = {**self._log.labels, "pid": self.pid}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == _STDERR:
            for line in self._lines.feed(data):
                self._log.take(line)
        else:
            for line in self._messages.feed(data):
                self._take(line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == _STDERR:
            for line in self._lines.end():
                self._log.take(line)
            self._log.end()
        self._open.discard(fd)
        if not self._open and self.exited.done():
            self._end()

    def process_exited(self) -> None:
        status = cast(int, self._transport.get_returncode())
        self._kill_group()  # what it started is of no use without it, and may hold a GPU's memory
        self.exited.set_result(status)
        if self._open:
            self._loop.call_later(_DRAIN_SECONDS, self._end)
        else:
            self._end()

    # ------------------------------------------------------------------------------------------------

    def _take(self, line: bytes) -> None:
        try:
            self._understand(json.loads(line))
        except (ValueError, TypeError, LookupError, RecursionError):
            # Something printed before the child had its stdout to itself, or a damaged line.
            self._log.take(line)

    def _understand(self, message: Message) -> None:
        if "progress" in message:
            self._report(message["phase"], message["progress"])
        elif "ready" in message:
            self._decide(info_from(message["ready"]))
        elif "failed" in message:
            self.failure = error_from(message)
            self._decide(None)

    def _decide(self, info: EngineInfo | None) -> None:
        if not self._decided.done():
            self._decided.set_result(info)

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
            self._transport.close()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS: it has only zombies
            os.killpg(self.pid, signal.SIGKILL)

    def _write(self, line: bytes) -> None:
        stdin = self._transport.get_pipe_transport(_STDIN)
        cast(asyncio.WriteTransport, stdin).write(line)
