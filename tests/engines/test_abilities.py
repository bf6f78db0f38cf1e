"""What models can do, before and after they are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.abilities import TOLD, expected, of_loaded
from engines.base import EngineInfo
from engines.models.catalog import CatalogEntry
from engines.models.model import Model
from engines.models.store import ModelFile
from engines.registry import ENGINES


def model(**fields: Any) -> Model:
    settings: dict[str, Any] = {"purpose": "text", "has_chat_template": False, "context_length": 4096}
    file = ModelFile("m", Path("m.gguf"), "gguf", 1, **{**settings, **fields})
    return Model("m", (), file, CatalogEntry(name="m"))


@pytest.mark.parametrize(
    ("fields", "can", "cannot"),
    [
        ({}, {"completion"}, {"chat", "tools", "fim", "embeddings", "reasoning"}),
        ({"has_chat_template": True, "has_fim": True}, {"chat", "completion", "fim"}, {"reasoning"}),
        ({"purpose": "embeddings", "pooling": "mean"}, set(), {"chat", "completion", "rerank"}),
    ],
)
@pytest.mark.parametrize("engine", ["llama_cpp", "mlx"])
def test_a_model_can_do_what_its_files_and_its_engine_say(
    engine: str, fields: dict[str, Any], can: set[str], cannot: set[str]
) -> None:
    found = expected(model(**fields), ENGINES[engine], None)
    assert can <= set(found.capabilities) <= ENGINES[engine].capabilities - cannot
    assert found.context_length == 4096
    assert found.pooling == fields.get("pooling", "")


def test_a_loaded_model_can_do_what_its_engine_says_of_it() -> None:
    capabilities = frozenset({"sleep", "embeddings", "chat"})
    info = EngineInfo("x", "m", 99, 1, (), capabilities, pooling="cls", embedding_length=5)
    found = of_loaded(info)
    assert found.capabilities == ("chat", "embeddings")
    assert found.output_modalities == ["text", "embeddings"]
    assert (found.context_length, found.pooling, found.embedding_length) == (99, "cls", 5)


def test_what_engines_can_do_is_told_by_known_names() -> None:
    declared = {name for engine in ENGINES.values() for name in engine.capabilities}
    assert declared - {"sleep"} == set(TOLD)
