"""Resident memory of the server, beyond what the model file and the KV cache must take."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

from benchmarks.harness.memory import MIB, resident
from benchmarks.harness.processes import BenchError
from benchmarks.harness.servers import Bench, Need, own_environment, subject
from benchmarks.load import tool as load_tool
from benchmarks.load.tool import Load


def measure(bench: Bench, load: Load) -> dict[str, float]:
    """MiB of the subject after loading and after ``load``. Raises `BenchError`."""
    per_token = two_slots(bench.gguf)["kv_per_token"]
    with subject(bench, Need()) as server:
        cells = int(server.get("/v1/system/metrics")["backends"][0]["kv_total"])
        loaded = resident(server.pid)
        report = load_tool.measure(bench, server, load)
        used = resident(server.pid)
    fixed = bench.gguf.stat().st_size + cells * per_token
    return {
        "loaded_mib": loaded / MIB,
        "used_mib": used / MIB,
        "loaded_extra_mib": (loaded - fixed) / MIB,
        "used_extra_mib": (used - fixed) / MIB,
        "kv_mib": cells * per_token / MIB,
        "kv_cells": float(cells),
        "file_mib": bench.gguf.stat().st_size / MIB,
        "errors": report.get("errors", 0.0),
    }


def measure_sharing(bench: Bench) -> dict[str, float]:
    """MiB that a second engine over the same weights adds. Raises `BenchError`."""
    sizes = two_slots(bench.gguf)
    grown = sizes["two"] - sizes["one"]
    return {
        "first_mib": (sizes["one"] - sizes["before"]) / MIB,
        "second_mib": grown / MIB,
        "second_extra_mib": (grown - sizes["kv"]) / MIB,
        "second_extra_of_file": (grown - sizes["kv"]) / bench.gguf.stat().st_size,
        "kv_mib": sizes["kv"] / MIB,
    }


@cache
def two_slots(model: Path) -> dict[str, float]:
    """What benchmarks.cases.two_slots says about ``model``, measured once, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.cases.two_slots", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, env=own_environment(), timeout=300)
    if done.returncode:
        raise BenchError(f"two engines over one model failed: {done.stderr.strip()[-400:]}")
    sizes: dict[str, float] = json.loads(done.stdout)
    return sizes
