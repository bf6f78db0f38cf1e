"""Server processes: started on a free loopback port, waited for, and stopped for sure."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

START_TIMEOUT = 120.0
STOP_TIMEOUT = 15.0


class BenchError(Exception):
    """A measurement could not be made; the message says why."""


class NotInstalled(BenchError):
    """A peer that would be measured beside ours is not here and cannot be installed."""


def say(text: str) -> None:
    """Progress goes to standard error: the table has standard output."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class BenchServer:
    """A server that is ready. ``label`` names it in the results."""

    label: str
    url: str
    pid: int

    def get(self, path: str) -> Any:
        """The JSON at ``path``. Raises `httpx.HTTPError`."""
        return self._get(path).json()

    def text(self, path: str) -> str:
        """The text at ``path``. Raises `httpx.HTTPError`."""
        return self._get(path).text

    def _get(self, path: str) -> httpx.Response:
        reply = httpx.get(self.url + path, trust_env=False, timeout=10)
        reply.raise_for_status()
        return reply

    def model(self) -> str:
        """The name of the model it serves."""
        return str(self.get("/v1/models")["data"][0]["id"])


@contextmanager
def running(
    label: str,
    command: Callable[[int], Sequence[str]],
    env: Mapping[str, str],
    ready: str,
    log: Path,
    patience: float = START_TIMEOUT,
) -> Iterator[BenchServer]:
    """Run ``command(port)`` until the block ends. It is ready when the path ``ready`` answers 200.

    Its output goes to ``log``, next to which it runs: no ``.env`` of the current folder reaches it.
    Raises `BenchError` if it ends, or is not ready after ``patience`` seconds.
    """
    port = free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command(port)), env=dict(env), stdout=output, stderr=subprocess.STDOUT, cwd=log.parent
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, url + ready, log, patience)
        yield BenchServer(label, url, process.pid)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask ``process`` to end, and end it if it does not; children that it leaves behind end too."""
    children = _children(process.pid)
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    with httpx.Client(trust_env=False, timeout=5) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise BenchError(f"the server ended with status {process.returncode}: {tail(log)}")
            if _answers(client, url):
                return
            time.sleep(0.1)
    raise BenchError(f"the server was not ready after {patience:.0f} s: {tail(log)}")


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == 200
    except httpx.TransportError:
        return False


def tail(log: Path, characters: int = 400) -> str:
    """The end of a log file."""
    return log.read_text(encoding="utf-8", errors="replace").strip()[-characters:]
