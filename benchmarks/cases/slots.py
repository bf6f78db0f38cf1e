"""What three local instances of one model take beside one: the weights are shared, the KV caches are not."""

from __future__ import annotations

import time

from benchmarks.cases.memory import two_slots
from benchmarks.harness.memory import MIB, proportional
from benchmarks.harness.processes import START_TIMEOUT, BenchError, BenchServer
from benchmarks.harness.servers import Bench, Need, subject
from benchmarks.load import tool as load_tool
from benchmarks.load.tool import Load

KV_TOKENS = 4096
SLOTS = 3


def measure(bench: Bench) -> dict[str, float]:
    """MiB of our server with one slot and with three, all of them used. Raises `BenchError`."""
    kv = KV_TOKENS * two_slots(bench.gguf)["kv_per_token"]
    one, three = _used(bench, 1), _used(bench, SLOTS)
    return {
        "three_by_one": (three - SLOTS * kv) / (one - kv),
        "three_mib": three / MIB,
        "one_mib": one / MIB,
        "kv_mib": kv / MIB,
    }


def _used(bench: Bench, slots: int) -> int:
    env = {
        "INFERENCE_ENGINE": "llama_cpp",
        "INFERENCE_MODE": "load_balance",
        "INSTANCE_KIND": "local",
        "CLUSTER_INSTANCES": str(slots),
        "AUTO_SCALING": "false",
        "KV_CACHE_TOKENS": str(KV_TOKENS),
        "MAX_SEQUENCES": "8",
        "MAX_CPU_THREADS": "1",
    }
    with subject(bench, Need(env=env)) as server:
        _wait_for(server, slots)
        # In turn, so every slot has computed when memory is read.
        report = load_tool.measure(bench, server, Load(SLOTS, 4 * SLOTS, 16, ignore_eos=True))
        if report.get("errors"):
            raise BenchError(f"{report['errors']:.0f} requests failed")
        return proportional(server.pid)


def _wait_for(server: BenchServer, slots: int) -> None:
    """Returns when so many run: a server is ready with the first. Raises `BenchError`."""
    deadline = time.monotonic() + START_TIMEOUT
    while (running := server.get("/v1/cluster/status")["running_instances"]) < slots:
        if time.monotonic() > deadline:
            raise BenchError(f"{running} of {slots} slots run after {START_TIMEOUT:.0f} s")
        time.sleep(0.2)
