"""Closed-loop load from a process of its own: the project's generator, or any with the same few options."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.harness.servers import Bench, own_environment

TIMEOUT = 900.0
# Words. With the question and the answer they fit a llama-server slot of 1,024 tokens.
SHARED_WORDS = 500


@dataclass(frozen=True, slots=True)
class Load:
    connections: int
    requests: int
    max_tokens: int
    shared_prefix: bool = False
    ignore_eos: bool = False


def measure(bench: Bench, server: BenchServer, load: Load) -> dict[str, float]:
    """Put ``load`` on ``server`` and return what the tool measured.

    Raises `BenchError` if there is no result; failed requests are in ``errors``.
    """
    if bench.load_tool:
        command = [*bench.load_tool, server.url, server.model(), *external_options(server.pid, load)]
        return numbers(_run(command))
    command = [sys.executable, "-m", "app", "bench", "--url", server.url, *own_options(server.pid, load)]
    return from_own(_run(command))


def external_options(pid: int, load: Load) -> list[str]:
    return [*_common(pid, load), *(["--shared-prefix"] if load.shared_prefix else [])]


def own_options(pid: int, load: Load) -> list[str]:
    prefix = ["--shared-prefix", str(SHARED_WORDS)] if load.shared_prefix else []
    # A seed, so that every server gets the same prompts.
    return [*_common(pid, load), *prefix, "--seed", "1"]


def _common(pid: int, load: Load) -> list[str]:
    options = ["--connections", str(load.connections), "--requests", str(load.requests)]
    options += ["--max-tokens", str(load.max_tokens), "--pid", str(pid), "--json"]
    return options + (["--ignore-eos"] if load.ignore_eos else [])


def _run(command: list[str]) -> dict[str, Any]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=own_environment())
    except subprocess.TimeoutExpired:
        raise BenchError(f"the load did not end within {TIMEOUT:.0f} s") from None
    except OSError as error:
        raise BenchError(f"the load tool cannot be started: {error}") from None
    try:
        # A tool's status may be bad because some requests failed: its report says so itself.
        report = json.loads(done.stdout)
    except ValueError:
        raise BenchError(f"the load tool gave no result: {done.stderr.strip()[-400:]}") from None
    if not isinstance(report, dict):
        raise BenchError("the load tool's result is not an object")
    return report


def numbers(report: dict[str, Any]) -> dict[str, float]:
    """The numeric values of a report."""
    return {key: float(value) for key, value in report.items() if isinstance(value, int | float)}


def from_own(report: dict[str, Any]) -> dict[str, float]:
    """The project's own report under the names of the common interface, times in milliseconds."""
    values = numbers(report)
    values["tokens_per_s"] = values.pop("tokens_per_second", 0.0)
    values["requests_per_s"] = values.pop("requests_per_second", 0.0)
    for name, short in (("ttft", "ttft"), ("inter_token", "itl"), ("end_to_end", "total")):
        for part, seconds in (report.get(name) or {}).items():
            if seconds is not None:
                values[f"{short}_{part}_ms"] = 1e3 * seconds
    return values
