<<<<<<< HEAD
"""What models are for, as their files tell: rerankers of each kind."""
=======
"""What a model is for, as its header tells before it is loaded."""
>>>>>>> f

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

<<<<<<< HEAD
from engines.models.gguf import GgufHeader
from engines.models.purpose import has_rank_head, purpose_in_folder, purpose_in_gguf
from support.tiny_gguf import tiny_gguf
from support.tiny_reranker import tiny_reranker

PAIRS = (
    "{{ messages | selectattr('role', 'eq', 'query') }} {{ messages | selectattr('role', 'eq', 'document') }}"
)
=======
from app.inference.targets import Resolved
from balancer.call import Target
from engines.errors import UnsupportedFeature
from engines.models.gguf import GgufHeader
from engines.models.purpose import purpose_in_folder, purpose_in_gguf

SENTENCES = {"1_Pooling/config.json": {"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True}}

WEIGHTED = {"1_Pooling/config.json": {"pooling_mode_weightedmean_tokens": True}}
>>>>>>> f


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
<<<<<<< HEAD
        ({"bert.pooling_type": 4}, ("rerank", "rank")),
        ({"tokenizer.chat_template.rerank": "{query} {document}"}, ("rerank", None)),
        ({"tokenizer.chat_template.reranker": PAIRS}, ("rerank", None)),
        ({"tokenizer.chat_template": PAIRS}, ("rerank", None)),
        (
            {"tokenizer.chat_template": "{{ messages }} {query}", "general.architecture": "qwen3"},
            ("text", None),
        ),
    ],
)
def test_in_a_file(metadata: dict[str, Any], expected: tuple[str, str | None]) -> None:
    kept = {"general.architecture": "bert" if "bert.pooling_type" in metadata else "qwen3"} | metadata
    assert purpose_in_gguf(GgufHeader(kept, 1, 1)) == expected


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ({"true_token_id": 1, "false_token_id": 2}, "rerank"),
        ({"true_token_id": 1, "false_token_id": None}, "text"),
    ],
)
def test_in_a_folder_of_sentence_transformers(tmp_path: Path, tokens: Any, expected: str) -> None:
    (tmp_path / "1_LogitScore").mkdir()
    (tmp_path / "1_LogitScore" / "config.json").write_text(json.dumps(tokens))
    (tmp_path / "modules.json").write_text("[]")
    assert purpose_in_folder(tmp_path, {"architectures": ["Qwen3ForCausalLM"]}) == (expected, None)


def test_a_head_is_found_by_its_name(tmp_path: Path) -> None:
    assert has_rank_head(tiny_reranker(tmp_path / "a.gguf"))
    assert not has_rank_head(tiny_gguf(tmp_path / "b.gguf"))
=======
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
>>>>>>> f
