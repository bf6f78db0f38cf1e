"""What a model is for, as its header tells before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.inference.targets import Resolved
from balancer.call import Target
from engines.errors import UnsupportedFeature
from engines.models.gguf import GgufHeader
from engines.models.purpose import purpose_in_folder, purpose_in_gguf

SENTENCES = {"1_Pooling/config.json": {"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True}}

WEIGHTED = {"1_Pooling/config.json": {"pooling_mode_weightedmean_tokens": True}}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"general.architecture": "llama"}, ("text", None)),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 3}, ("embeddings", "last")),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 4}, ("rerank", "rank")),
        ({"general.architecture": "qwen3", "qwen3.pooling_type": 0}, ("text", None)),
        ({"general.architecture": "bert", "bert.pooling_type": 1}, ("embeddings", "mean")),
        ({"general.architecture": "bert", "bert.pooling_type": "?"}, ("embeddings", None)),
        ({"general.architecture": "nomic-bert"}, ("embeddings", None)),
    ],
)
def test_of_a_gguf_file(metadata: dict[str, Any], expected: tuple[str, str | None]) -> None:
    assert purpose_in_gguf(GgufHeader(metadata, 1, 1)) == expected


@pytest.mark.parametrize(
    ("architecture", "files", "expected"),
    [
        ("Qwen3ForCausalLM", {}, ("text", None)),
        ("Qwen3ForCausalLM", SENTENCES, ("embeddings", "last")),
        ("BertModel", {}, ("embeddings", None)),
        (
            "BertModel",
            WEIGHTED,
            ("embeddings", None),
        ),
        ("XLMRobertaForSequenceClassification", {}, ("rerank", "rank")),
        (None, {}, ("text", None)),
    ],
)
def test_of_a_folder(
    tmp_path: Path, architecture: str | None, files: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    config = {} if architecture is None else {"architectures": [architecture]}
    assert purpose_in_folder(tmp_path, config) == expected


def test_who_asks_the_wrong_model_is_told_of_others() -> None:
    chat = Resolved(Target("chat"), purpose="text", others=lambda purpose: [f"a {purpose} model"])
    chat.check_purpose("text")
    Resolved(Target("any")).check_purpose("rerank")
    with pytest.raises(UnsupportedFeature, match="such as a embeddings model") as refusal:
        chat.check_purpose("embeddings")
    assert refusal.value.param == "model"
    with pytest.raises(UnsupportedFeature, match="generates no text: load a model that does"):
        Resolved(Target("bert"), purpose="embeddings").check_purpose("text")
