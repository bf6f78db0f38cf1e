"""Rerankers of each kind, as their files tell of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engines.models.gguf import GgufHeader
from engines.models.purpose import has_rank_head, purpose_in_folder, purpose_in_gguf
from support.tiny_gguf import tiny_gguf
from support.tiny_reranker import tiny_reranker

PAIRS = (
    "{{ messages | selectattr('role', 'eq', 'query') }} {{ messages | selectattr('role', 'eq', 'document') }}"
)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
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
