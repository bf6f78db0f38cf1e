"""llama.cpp and MLX in one server at the same time, each chosen for the model's format."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import httpx

from support.models import smollm2, smollm2_folder
from support.server import live_server

SMALL = {"context_length": 512, "kv_cache_tokens": 2048, "max_sequences": 4, "max_cpu_threads": 1}


async def test_a_gguf_file_and_a_folder_serve_side_by_side(tmp_path: Path) -> None:
    shutil.copy(smollm2(), tmp_path / "file.gguf")
    shutil.copytree(smollm2_folder(), tmp_path / "folder")
    both = {"inference_mode": "multi_instance", "max_concurrent_models": 2, "load_timeout": 150}
    with live_server(model_base_path=tmp_path, default_model="file", **SMALL | both) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=170) as client:

            async def ask(model: str) -> str:
                messages = [{"role": "user", "content": "Write one sentence about the sea."}]
                body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 8}
                answer = (await client.post("/v1/chat/completions", json=body)).json()
                assert answer["model"] == model
                return str(answer["choices"][0]["message"]["content"])

            answers = await asyncio.gather(*(ask(model) for model in ("file", "folder") * 3))
            assert all(answers)
            assert len(set(answers[::2])) == len(set(answers[1::2])) == 1
            cards = (await client.get("/v1/models")).json()["data"]
            engines = {card["id"]: (card["engine"], card["state"]) for card in cards}
            assert engines["file"] == ("llama_cpp", "ready")
            assert engines["folder"] == ("mlx", "ready")
            refused = {"model_name": "folder", "engine": "llama_cpp"}
            await client.delete("/v1/models/folder")
            wrong = await client.post("/v1/models/load", json=refused)
            assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "unsupported_feature")
            assert "GGUF" in wrong.json()["error"]["message"]
