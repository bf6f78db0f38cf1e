"""Embeddings: requests of many texts, one after the other, beside llama-server's."""

from __future__ import annotations

import base64
import random
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks.harness import embedding_model
from benchmarks.harness.case import Case, Values, beside_llama_server, metrics
from benchmarks.harness.models import kept
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.harness.servers import Bench, Need, started

TIMEOUT = 120.0
SENTENCES = """
the sun rises over a quiet sea while boats return with fish and gulls cry above old stone houses where people
wake make coffee open windows and speak of rain wind markets children and roads that lead inland
"""
WORDS = SENTENCES.split()
# The vectors of two servers are of one model if they are as much alike.
ALIKE = 0.999


@dataclass(frozen=True, slots=True)
class EmbeddingPlan:
    """``texts`` of 20 to 60 words in each of ``requests``; the first request is not counted."""

    texts: int = 64
    requests: int = 12


def cases(bench: Bench) -> list[Case]:
    plan = EmbeddingPlan(texts=8, requests=2) if bench.quick else EmbeddingPlan()
    bench = replace(
        bench,
        model=embedding_model.minilm(kept("bench")),
        peer_args=(*bench.peer_args, "--embeddings"),
    )
    need = Need(connections=8, context=8192)
    found: dict[int | None, np.ndarray[Any, Any]] = {}

    def measure_one(kind: int | None) -> Values:
        with started(bench, kind, need) as server:
            values, found[kind] = measure(server, plan)
        for other in found.values():
            if float((other * found[kind]).sum(axis=1).min()) < ALIKE:
                raise BenchError("the servers' vectors differ")
        return values

    keys = ("texts_per_s", "request_p50_ms", "cpu_ms_per_request")
    name = f"embeddings, {plan.texts} texts a request"
    return [Case(name, metrics("embeddings", keys), beside_llama_server(bench, measure_one))]


def measure(server: BenchServer, plan: EmbeddingPlan) -> tuple[Values, np.ndarray[Any, Any]]:
    """Figures of the requests, and the vectors of the first. Raises `BenchError`."""
    model, process = server.model(), psutil.Process(server.pid)
    with httpx.Client(base_url=server.url, timeout=TIMEOUT, trust_env=False) as client:
        first = _ask(client, model, _texts(plan.texts, seed=0))
        seconds: list[float] = []
        before = _cpu(process)
        for number in range(plan.requests):
            texts = _texts(plan.texts, seed=number + 1)
            start = time.perf_counter()
            _ask(client, model, texts)
            seconds.append(time.perf_counter() - start)
        spent = _cpu(process) - before
    return {
        "texts_per_s": plan.texts * plan.requests / sum(seconds),
        "request_p50_ms": 1e3 * statistics.median(seconds),
        "cpu_ms_per_request": 1e3 * spent / plan.requests,
    }, first


def _ask(client: httpx.Client, model: str, texts: list[str]) -> np.ndarray[Any, Any]:
    body = {"model": model, "input": texts, "encoding_format": "base64"}
    reply = client.post("/v1/embeddings", json=body)
    if reply.status_code != 200:
        raise BenchError(f"embeddings: {reply.status_code} {reply.text[:200]}")
    rows = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in reply.json()["data"]]
    return np.stack(rows)


def _texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(20, 60))) for _ in range(count)]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
