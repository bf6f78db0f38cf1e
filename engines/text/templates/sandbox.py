"""The sandbox of chat templates, which are programs from strangers: their environment and process.

Jinja's sandbox keeps a template from Python's objects, but not from looping forever or filling the
memory. So `serve` runs in a child process (see ``renderer.py``) that its parent kills by the clock.
This module imports nothing of the project, which keeps the child small and quick to start.

A frame is a length (four bytes, big endian) and that many bytes of JSON. The child sends
``{"ready": true}`` once, then answers each request in order::

    {"template": int, "source": str | null, "seconds": float, "context": {...}}
    {"text": str}  or  {"error": "compile" | "refused" | "failed" | "limit", "message": str}

With a ``source``, ``template`` is the number to remember it by; without one, a number given before.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

# Jinja imports its debug helper only when a template fails; have it here before memory is short.
import jinja2.debug  # noqa: F401
from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_FRAME = 16 * 2**20
"""Bytes; a longer answer is refused by the child, and not believed by the parent."""
MAX_MESSAGE = 500
"""Characters of a template's own error message that are passed on."""


class TemplateRefused(TemplateError):
    """The template called ``raise_exception``; the message is the template's own."""


class GenerationTag(Extension):
    """``{% generation %}…{% endgeneration %}`` marks what training learns from; here it is only a scope."""

    tags = {"generation"}  # noqa: RUF012 - declared so by Jinja

    def parse(self, parser: Parser) -> nodes.Node:
        scope = nodes.Scope(lineno=next(parser.stream).lineno)
        scope.body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return scope


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Chat templates expect this one rather than Jinja's own, which escapes HTML and sorts keys."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRefused(str(message))


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def make_environment() -> ImmutableSandboxedEnvironment:
    """The environment chat templates are written for: that of Hugging Face's transformers."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class Failure(Exception):
    """An answer without text; ``kind`` is one of the protocol's."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def compile_template(environment: ImmutableSandboxedEnvironment, source: str) -> Template:
    """Raises `Failure`, and MemoryError."""
    try:
        return environment.from_string(source)
    except MemoryError:
        raise
    except Exception as error:  # also Python's own SyntaxError, RecursionError, …
        raise Failure("compile", _describe(error)) from None


def render(template: Template, context: Mapping[str, Any]) -> str:
    """Render in *this* process, with no limit of time. Raises `Failure`, and MemoryError."""
    try:
        return template.render(context)
    except TemplateRefused as error:
        raise Failure("refused", str(error)) from None
    except MemoryError:
        raise
    except Exception as error:
        raise Failure("failed", _describe(error)) from None


def _describe(error: Exception) -> str:
    """The error's message; Jinja's stand alone, Python's need their class's name to be understood."""
    if isinstance(error, TemplateError):
        return str(error)
    return f"{type(error).__name__}: {error}"


class TemplateServer:
    """Answers requests; keeps what it compiled for as long as the process lives."""

    def __init__(self, memory: int | None) -> None:
        """``memory``: bytes allowed on top of what the process uses when it starts, for messages only."""
        self._environment = make_environment()
        self._compiled: dict[int, Template] = {}
        self._memory = memory

    def answer(self, request: Mapping[str, Any]) -> bytes:
        """The encoded reply. Never raises what a template can provoke, short of a crash."""
        try:
            return self._answer(request)
        except Failure as failure:
            reply = {"error": failure.kind, "message": failure.message[:MAX_MESSAGE]}
        except MemoryError:
            allowed = f"the {self._memory >> 20} MiB" if self._memory else "the memory"
            reply = {"error": "limit", "message": f"needs more than {allowed} it is allowed"}
        return json.dumps(reply).encode()

    def _answer(self, request: Mapping[str, Any]) -> bytes:
        template = self._template(request["template"], request["source"])
        text = render(template, request["context"])
        # Checked before encoding too, which would need several times the memory.
        if len(text) <= MAX_FRAME:
            reply = json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "surrogatepass")
            if len(reply) <= MAX_FRAME:
                return reply
        raise Failure("limit", f"wrote more than {MAX_FRAME >> 20} MiB")

    def _template(self, template_id: int, source: str | None) -> Template:
        if source is not None:
            self._compiled[template_id] = compile_template(self._environment, source)
        return self._compiled[template_id]


def close_inherited_files() -> None:
    """Keep stdin, stdout and stderr. uvloop lets a child inherit what is not marked otherwise."""
    if sys.platform == "win32":
        return
    for name in os.listdir("/dev/fd"):
        if int(name) > 2:
            with suppress(OSError):  # the listing's own
                os.close(int(name))


def limit_process(memory: int | None) -> None:
    """Die by signals, leave no core dumps, and use at most ``memory`` bytes of address space more than now.

    Only Linux tells what "now" is; elsewhere the clock alone bounds a template.
    """
    if sys.platform == "win32":
        return
    import resource

    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # `set_alarm` must work whatever was inherited
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the parent died: end without a word
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    if memory is not None and statm.exists():
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + memory
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def set_alarm(seconds: float) -> None:
    """Let the kernel end this process after ``seconds`` (0: never).

    The parent's clock comes first; this one is for a template that loops when the parent has died.
    """
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame's body; None when the stream has ended, be it inside a frame."""
    header = stream.read(4)
    length = int.from_bytes(header, "big")
    body = stream.read(length)
    return body if len(header) == 4 and len(body) == length else None


def write_frame(stream: BinaryIO, body: bytes) -> None:
    """Write and flush one frame."""
    stream.write(len(body).to_bytes(4, "big"))
    stream.write(body)
    stream.flush()


def serve(memory: int | None) -> None:
    """Answer requests from stdin on stdout until stdin closes, so that no child outlives its parent."""
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    server = TemplateServer(memory)
    close_inherited_files()
    limit_process(memory)
    write_frame(replies, b'{"ready": true}')
    while (body := read_frame(requests)) is not None:
        request = json.loads(body)
        set_alarm(2 * request["seconds"] + 1)
        reply = server.answer(request)
        set_alarm(0)
        write_frame(replies, reply)
