"""The child process that renders chat templates, as its parent sees it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from engines.errors import EngineError
from engines.text.templates.sandbox import MAX_FRAME

# What a reply's "error" may be, if the child has compiled the template and keeps it.
_COMPILED = (None, "refused", "failed")


def child_command(memory: int | None) -> list[str]:
    """What to execute for a child that may use ``memory`` bytes.

    It runs without `site` and the PYTHON* variables, which is safer and starts faster, so it is told
    where its three packages are. They go last: nothing there may shadow the standard library.
    """
    serve = f"from engines.text.templates.sandbox import serve; serve({memory})"
    script = f"import sys; sys.path += sys.argv[1:]; {serve}"
    project = Path(__file__).resolve().parents[3]
    folders = [project, *(Path(str(module.__file__)).parents[1] for module in (jinja2, markupsafe))]
    return [sys.executable, "-I", "-S", "-c", script, *map(str, dict.fromkeys(folders))]


class TemplateChildDied(Exception):
    """The child ended, or said something that it cannot say, before it answered."""


@dataclass(eq=False, slots=True)
class TemplateJob:
    """A template to render, and the future that gets its text. ``timeout`` in seconds."""

    source: str
    context: str  # JSON
    timeout: float
    done: asyncio.Future[str]

    def encode(self, number: int, with_source: bool) -> bytes:
        source = self.source if with_source else None
        head = json.dumps({"template": number, "source": source, "seconds": self.timeout})
        return f'{head[:-1]}, "context": {self.context}}}'.encode()

    def fail(self, error: EngineError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class TemplateChild:
    """A child process and the templates it knows. One exchange at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._known: dict[str, int] = {}

    @classmethod
    async def spawn(cls, memory: int | None, environment: Mapping[str, str]) -> TemplateChild:
        """Start the process; raises OSError. Await `ready` before the first exchange."""
        process = await asyncio.create_subprocess_exec(
            *child_command(memory),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C must not end it while answers are still drained
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ready(self) -> None:
        """Wait until it has imported what it needs and limited itself."""
        await self._receive()

    async def exchange(self, job: TemplateJob) -> dict[str, Any]:
        """The reply to ``job``. If this is cancelled, the child must be stopped."""
        number = self._known.get(job.source)
        request = job.encode(len(self._known) if number is None else number, with_source=number is None)
        try:
            self._stdin.write(len(request).to_bytes(4, "big") + request)
            await self._stdin.drain()
        except (OSError, RuntimeError) as error:  # uvloop: RuntimeError on a closed pipe
            raise TemplateChildDied from error
        reply = await self._receive()
        if number is None and reply.get("error") in _COMPILED:
            self._known[job.source] = len(self._known)
        return reply

    def kill(self) -> None:
        """Whoever waits for `ready` or `exchange` gets `TemplateChildDied`."""
        if self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        """Kill it and wait until nothing of it is left."""
        self.kill()
        self._stdin.close()
        await self._stdout.read()  # to its end, so that the pipe's transport closes too
        await self._process.wait()

    async def _receive(self) -> dict[str, Any]:
        try:
            length = int.from_bytes(await self._stdout.readexactly(4), "big")
            if length > MAX_FRAME:
                raise TemplateChildDied
            reply = json.loads(await self._stdout.readexactly(length))
        except (OSError, EOFError, ValueError, RecursionError) as error:
            raise TemplateChildDied from error
        if not isinstance(reply, dict):
            raise TemplateChildDied
        return reply
