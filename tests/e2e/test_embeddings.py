"""Embeddings of a real model over HTTP, in this process and in a child process, beside a chat model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from openai import BadRequestError, OpenAI

from support.models import minilm, minilm_references, smollm2
from support.server import live_server

EMBEDDER, CHAT = "all-MiniLM-L6-v2", "SmolLM2-135M-Instruct"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for model in (minilm(), smollm2()):
        os.link(model, tmp_path / model.name)
    return tmp_path


@pytest.mark.parametrize("kind", ["local", "process"])
def test_a_switch_between_chat_and_embeddings(folder: Path, kind: str) -> None:
    """Who asks the wrong model is refused before anything is loaded; the right ones take turns."""
    settings: dict[str, Any] = {"default_model": CHAT, "model_base_path": str(folder), "context_length": 512}
    settings |= {"instance_kind": kind, "instance_port": 18770, "max_cpu_threads": 1}
    if kind == "process":
        settings |= {"inference_mode": "load_balance", "cluster_instances": 1, "auto_scaling": False}
    with live_server(**settings) as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        with pytest.raises(BadRequestError, match=f"such as {EMBEDDER}"):
            client.embeddings.create(model=CHAT, input="x")
        with pytest.raises(BadRequestError, match=f"such as {CHAT}"):
            client.completions.create(model=EMBEDDER, prompt="x")
        assert server.house.manager.status(EMBEDDER).loads == 0

        references = minilm_references()
        texts = [each.text for each in references]
        found = client.embeddings.create(model=EMBEDDER, input=texts)
        vectors = np.array([each.embedding for each in found.data])
        expected = np.array([each.vector for each in references])
        cosines = (vectors * expected).sum(axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() >= 0.999
        assert found.usage.prompt_tokens == sum(len(each.tokens) for each in references)
        assert server.house.manager.status(CHAT).state == "sleeping" or kind == "process"

        tokens: Any = [each.tokens for each in references]
        for fields in ({"input": tokens}, {"input": texts, "encoding_format": "float"}):
            again = client.embeddings.create(model=EMBEDDER, **fields)
            assert np.array([each.embedding for each in again.data]) == pytest.approx(vectors, abs=1e-4)
        card = httpx.get(f"{server.url}/v1/models/{EMBEDDER}").json()
        assert (card["state"], card["context_length"]) == ("ready", 512)
        answer = client.completions.create(model=CHAT, prompt="One, two,", max_tokens=3)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 3
        assert len(client.embeddings.create(model=EMBEDDER, input="x").data) == 1
