"""A server with workers as its instances, and what can be done to it from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.harness.processes import BenchError, BenchServer, free_port
from benchmarks.harness.servers import Bench, Need, subject

INSTANCES = 3
CHECK_SECONDS = 2.0
# Loading on a machine that is busy with streams takes its time.
PATIENCE = 300.0
POLL_SECONDS = 0.05


@contextmanager
def cluster(bench: Bench, env: Mapping[str, str]) -> Iterator[tuple[BenchServer, Path]]:
    """A server with `INSTANCES` workers, and its log. Raises `BenchError` if it does not start."""
    settings = {
        "INFERENCE_MODE": "load_balance",
        "INSTANCE_KIND": "process",
        "CLUSTER_INSTANCES": str(INSTANCES),
        "INSTANCE_PORT": str(free_port()),
        "AUTO_SCALING": "false",
        "HEALTH_CHECK_INTERVAL": f"{CHECK_SECONDS:g}",
        "MAX_CONCURRENT_REQUESTS": "128",
        "LOG_LEVEL": "INFO",
        **env,
    }
    with subject(bench, Need(env=settings)) as server:
        newest = max((bench.out / "logs").iterdir(), key=lambda log: log.name)
        yield server, newest


@dataclass(frozen=True, slots=True)
class Seen:
    """An instance as the status shows it."""

    name: str
    state: str
    pid: int | None
    restarts: int

    @property
    def is_ready(self) -> bool:
        return self.state == "ready" and self.pid is not None


class Operator:
    """Looks at the server and does things to it. ``log`` is the server's, for those who ask for `seams`."""

    def __init__(self, server: BenchServer, log: Path | None = None) -> None:
        self.server = server
        self._log = log
        self._client = httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, trust_env=False)

    @classmethod
    @asynccontextmanager
    async def of(cls, server: BenchServer, log: Path | None = None) -> AsyncIterator[Operator]:
        operator = cls(server, log)
        try:
            yield operator
        finally:
            await operator._client.aclose()

    async def status(self) -> dict[str, Any]:
        reply = await self._client.get("/v1/cluster/status")
        reply.raise_for_status()
        status: dict[str, Any] = reply.json()
        return status

    async def instances(self) -> dict[str, Seen]:
        reports = (await self.status())["instances"]
        return {n: Seen(n, each["state"], each["pid"], each["restarts"]) for n, each in reports.items()}

    async def failovers(self) -> dict[str, int]:
        counts: dict[str, int] = (await self.status())["failovers"]
        return counts

    async def post(self, path: str, body: dict[str, Any]) -> None:
        """Raises `BenchError` unless the answer is a success."""
        reply = await self._client.post(path, json=body)
        if reply.status_code >= 300:
            raise BenchError(f"{path} {body} was answered {reply.status_code}: {reply.text[:300]}")

    async def until(self, condition: Callable[[dict[str, Seen]], bool], what: str) -> float:
        """Wait until ``condition`` holds for the instances; the seconds it took. Raises `BenchError`."""
        began = time.perf_counter()
        while not condition(seen := await self.instances()):
            if time.perf_counter() - began > PATIENCE:
                raise BenchError(f"not within {PATIENCE:.0f} s: {what}; there is {list(seen.values())}")
            await asyncio.sleep(POLL_SECONDS)
        return time.perf_counter() - began

    async def until_ready(self, count: int) -> float:
        return await self.until(
            lambda seen: len(seen) == count and all(each.is_ready for each in seen.values()),
            f"{count} instances, all ready",
        )

    def seams(self) -> dict[str, list[int]]:
        """By request id, after how many tokens its answer went on elsewhere, as the log tells."""
        assert self._log is not None
        found: dict[str, list[int]] = {}
        for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
            if '"an answer went on elsewhere"' not in line:
                continue
            data = json.loads(line)["data"]
            found.setdefault(data["request_id"], []).append(data["tokens"])
        return found

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.server.pid).children(recursive=True)


def send_signal(pid: int | None, which: signal.Signals) -> None:
    if pid is None:
        raise BenchError(f"there is no process to send {which.name}")
    os.kill(pid, which)


def gone(processes: list[psutil.Process], seconds: float) -> tuple[float, list[int]]:
    """Wait for ``processes`` to end; the seconds it took, and the pids of those that did not."""
    began = time.perf_counter()
    while alive := [process.pid for process in processes if _is_alive(process)]:
        if time.perf_counter() - began >= seconds:
            break
        time.sleep(POLL_SECONDS / 5)
    return time.perf_counter() - began, alive


def _is_alive(process: psutil.Process) -> bool:
    try:
        # When a zombie is reaped is up to whoever adopted it.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
