"""One model coming and going: load, a short chat, unload, as an operator would do it over HTTP."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from benchmarks.harness import peers
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.harness.servers import Bench, Need
from benchmarks.load.client import ask, chat_body
from engines.models import facts

QUESTION = "Name three things that float."
TOKENS = 8
# vLLM takes most of a minute to load on a small machine.
LOAD_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Cycle:
    """Seconds that each part took, as the client saw it."""

    load: float
    chat: float
    unload: float


def cycle(server: BenchServer, model: str) -> Cycle:
    """Load ``model``, which is not loaded, use it and unload it. Raises `BenchError`, `httpx.HTTPError`."""
    start = time.perf_counter()
    _request(server, "POST", "/v1/models/load", {"model_name": model})
    loaded = time.perf_counter()
    answer = asyncio.run(ask(server.url, chat_body(model, QUESTION, TOKENS)))
    if answer.error or answer.first is None:
        raise BenchError(f"a chat with {model} failed: {answer.error or 'no text came'}")
    used = time.perf_counter()
    unload(server, model)
    return Cycle(loaded - start, used - loaded, time.perf_counter() - used)


def unload(server: BenchServer, model: str) -> None:
    """Returns when its memory is freed."""
    _request(server, "DELETE", f"/v1/models/{quote(model)}")


def engine_need(bench: Bench, engine: str) -> Need:
    """Our server with one engine and the model that suits it.

    vLLM gets what `peers.vllm_server` gives its peer: no graphs, and the same limits and KV cache.
    """
    if engine == "llama_cpp":
        return Need(env={"INFERENCE_ENGINE": engine, "DEFAULT_MODEL": str(bench.gguf)})
    env = {"INFERENCE_ENGINE": engine, "DEFAULT_MODEL": str(bench.hf_folder)}
    if engine == "vllm":
        kv_bytes = peers.VLLM_KV_GIB * 2**30
        env |= {
            "MODEL_BASE_PATH": str(_eager_catalog(bench.out)),
            "CONTEXT_LENGTH": str(peers.VLLM_CONTEXT),
            "MAX_SEQUENCES": str(peers.VLLM_SEQUENCES),
            "KV_CACHE_TOKENS": str(kv_bytes // facts.describe(bench.hf_folder).kv_bytes_per_token),
        }
    return Need(env=env)


def _eager_catalog(out: Path) -> Path:
    base = out / "eager-vllm"
    base.mkdir(parents=True, exist_ok=True)
    (base / "models.yaml").write_text("defaults:\n  options:\n    enforce_eager: true\n", encoding="utf-8")
    return base


def _request(server: BenchServer, method: str, path: str, body: dict[str, Any] | None = None) -> None:
    reply = httpx.request(method, server.url + path, json=body, trust_env=False, timeout=LOAD_TIMEOUT)
    if not reply.is_success:
        raise BenchError(f"{method} {path} was answered with {reply.status_code}: {reply.text[:400]}")
