"""What crosses between the server and a worker."""

from __future__ import annotations

import json

import pytest

from balancer.workers.protocol import WorkerSpec, WorkerStatus, info_from, ready_message
from engines.base import EngineInfo, EngineStats

INFO = EngineInfo(
    "llama_cpp", "m", 2048, 8, ("cpu",), frozenset({"chat", "sleep"}), memory=1000, memory_asleep=7
)


def test_what_a_worker_is_crosses_whole() -> None:
    info = info_from(json.loads(json.dumps(ready_message(INFO)))["ready"])
    assert info == EngineInfo("llama_cpp", "m", 2048, 8, ("cpu",), frozenset({"chat"}), memory=1000)


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(WorkerSpec("m", 18100, "secret"))


def test_how_a_worker_does() -> None:
    body = b'{"ok": false, "detail": "ill", "stats": {"steps": 3}, "metrics": {"x": 1.5}, "more": 1}'
    assert WorkerStatus.from_json(body) == WorkerStatus(False, "ill", EngineStats(steps=3), {"x": 1.5})


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b"{}", b"[" * 100_000, b'{"ok":true,"detail":"","stats":{"odd":1},"metrics":{}}']
)
def test_what_is_no_status(body: bytes) -> None:
    with pytest.raises(ValueError, match="no status of a worker"):
        WorkerStatus.from_json(body)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff"])
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|codec"):
        WorkerStatus.from_json(body)
