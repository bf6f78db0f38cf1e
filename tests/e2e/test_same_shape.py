"""The same requests on different engines, and on a worker process: answers of the same shape, field by field.

vLLM's is in ``test_vllm_api.py``, whose server has it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from benchmarks.harness.processes import free_port
from support.models import smollm2, tiny_folder
from support.server import live_server
from support.shapes import check_same, shapes

pytestmark = pytest.mark.timeout(400)

SMALL = {"context_length": 512, "kv_cache_tokens": 2048, "max_sequences": 4, "max_cpu_threads": 1}


def test_engines_and_worker_processes_answer_in_the_same_shape(tmp_path: Path) -> None:
    shutil.copy(smollm2(), tmp_path / "file.gguf")
    shutil.copytree(tiny_folder(), tmp_path / "folder")
    here = {"inference_mode": "multi_instance", "max_concurrent_models": 2, "load_timeout": 150}
    with live_server(model_base_path=tmp_path, default_model="file", **SMALL | here) as server:
        with httpx.Client(base_url=server.url, timeout=170) as client:
            abilities = {"chat", "completion"}
            shapes(client, "file", abilities), shapes(client, "folder", abilities)  # loads both
            loaded = [server.engine(name) for name in ("file", "folder")]
            abilities = set.intersection(*(set(engine.info.capabilities) for engine in loaded if engine))
            assert "structured" in abilities
            wanted = shapes(client, "file", abilities)
            assert {code for code, _ in wanted.values()} == {200, 400}
            check_same(shapes(client, "folder", abilities), wanted)
    away = {
        "inference_mode": "load_balance",
        "instance_kind": "process",
        "instance_port": free_port(),
        "cluster_instances": 1,
        "auto_scaling": False,
    }
    with live_server(model_base_path=tmp_path, default_model="file", **SMALL | away) as server:
        with httpx.Client(base_url=server.url, timeout=170) as client:
            check_same(shapes(client, "file", abilities), wanted)
