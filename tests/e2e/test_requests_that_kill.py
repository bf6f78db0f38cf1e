"""A request that kills the process that computes it, with real processes and the engine without a model."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import httpx

from balancer.suspects import MOST_DEATHS, MOST_DEATHS_IN_ALL
from benchmarks.harness.processes import free_port
from support.server import LiveServer, live_server, wait_until


def kill_who_serves(server: LiveServer, killed: set[int], is_over: threading.Event) -> None:
    """Kill the instance that has the call, whichever it is, as soon as it has it."""
    while not is_over.wait(0.002):
        serving = [each.pid for each in server.house.balancer.statuses() if each.inflight and each.pid]
        for pid in set(serving) - killed:
            killed.add(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_it_is_given_up_after_a_few_deaths(tmp_path: Path) -> None:
    with live_server(
        inference_engine="fake",
        model_base_path=tmp_path,
        inference_mode="load_balance",
        instance_kind="process",
        instance_port=free_port(),
        cluster_instances=MOST_DEATHS,
        auto_scaling=False,
        context_length=1_000_000,
    ) as server:
        wait_until(lambda: all(each.state == "ready" for each in server.house.balancer.statuses()), 30)
        killed, is_over = set[int](), threading.Event()
        killer = threading.Thread(target=kill_who_serves, args=(server, killed, is_over))
        body = {
            "model": server.house.default.name,
            "messages": [{"role": "user", "content": "a b c"}],
            "stream": True,
            "ignore_eos": True,
            "max_tokens": 900_000,
        }
        last = ""
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    last = line
                    if killer.ident is None:
                        killer.start()
        is_over.set()
        killer.join()
        error = json.loads(last.removeprefix("data: "))["error"]
        assert error["code"] == "engine_error"
        assert "instances failed while they computed it" in error["message"]
        assert MOST_DEATHS <= len(killed) <= MOST_DEATHS_IN_ALL
        assert server.house.failovers.counts["broken"] == 1
