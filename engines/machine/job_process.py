"""One job in a child process: a request goes in, messages come out, and at last a result or a failure.

What may hang, crash or hold much memory runs here, so that stopping it is a kill. Requests and messages
are JSON objects, one a line, on the child's stdin and stdout. The child ends when its stdin does, so it
never outlives its parent.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

from engines.machine.child_environment import child_environment

Message = dict[str, Any]
Send = Callable[[Message], None]

_LINE_LIMIT = 16 * 2**20
_LAST_WORDS = 2000  # bytes of stderr that are kept to explain a death


class JobFailed(Exception):
    """The job says why it cannot be done; ``retryable`` if trying again may help."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable


class ChildDied(Exception):
    """The process ended without a result; the message has its exit status and last words."""


async def run_child(
    module: str, request: Mapping[str, Any], on_message: Send, *, needs: Collection[str] = ()
) -> Message:
    """Run ``python -m module`` on ``request`` and return its result; cancelling kills it.

    Of the secrets in our environment it has those that it ``needs``, by name. ``module`` calls `serve_job`
    when run. Raises `JobFailed` and `ChildDied`.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_LIMIT,
        env=child_environment(needs=needs),
        start_new_session=True,  # Ctrl-C is for the parent, which then stops its children
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    last_words = asyncio.create_task(_tail(process.stderr))
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        answer = await _answer(process.stdout, on_message)
    except BaseException:
        # Only here: for one that ended by itself, this could reap it before asyncio learns its status.
        if process.returncode is None:
            process.kill()
        raise
    finally:
        process.stdin.close()
        status = await process.wait()
        words = await last_words
    if "result" in answer:
        result: Message = answer["result"]
        return result
    if "failed" in answer:
        raise JobFailed(answer["failed"], retryable=answer["retryable"])
    raise ChildDied(f"{describe_exit(status)}: {words}" if words else describe_exit(status))


async def _answer(stdout: asyncio.StreamReader, on_message: Send) -> Message:
    """The child's result or failure; empty if its output ended before that."""
    while True:
        try:
            line = await stdout.readline()
            if not line.endswith(b"\n"):
                return {}
            message: Message = json.loads(line)
        except ValueError as error:
            raise ChildDied(f"the process was stopped: it sent what is no message ({error})") from error
        if "result" in message or "failed" in message:
            return message
        on_message(message)


async def _tail(stream: asyncio.StreamReader) -> str:
    tail = b""
    while piece := await stream.read(2**16):
        tail = (tail + piece)[-_LAST_WORDS:]
    return tail.decode("utf-8", "replace").strip()


def describe_exit(status: int) -> str:
    """For people: ``status`` as asyncio gives it, negative for a signal."""
    if status < 0:
        return f"the process was killed by {signal.Signals(-status).name}"
    return f"the process ended with status {status}"


def serve_job(job: Callable[[Message, Send], Message]) -> NoReturn:
    """The child's side: read the request, run ``job`` on it, answer and end the process.

    ``job`` may send messages from any thread and raises `JobFailed`. Libraries that print do so to stderr.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    writing = threading.Lock()

    def send(message: Message) -> None:
        with writing:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    request: Message = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        send({"result": job(request, send)})
    except JobFailed as error:
        send({"failed": error.message, "retryable": error.retryable})
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # Not sys.exit: threads that still wait for the network would be waited for.
    os._exit(0)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)
