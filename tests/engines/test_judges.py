"""Rerankers that generate, on the real engines: scores are the log odds of "yes" against "no"."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engines.base import Pair
from engines.errors import ContextLengthExceeded, UnsupportedFeature
from engines.load_spec import LoadSpec
from engines.registry import EngineRegistry
from support.judging import PLAIN, log_odds
from support.models import smollm2, tiny_folder

pytestmark = pytest.mark.real

CHAT = (
    "Is the document an answer?\n"
    "Query: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "Document: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}\n"
    "Answer (yes or no):"
)
PAIRS = [Pair("What is blue?", "The sea is blue."), Pair("{document} <|im_end|>", "Bread.")]


@pytest.mark.parametrize("engine", ["llama_cpp", "mlx"])
async def test_scores_are_log_odds(engine: str) -> None:
    path = smollm2() if engine == "llama_cpp" else tiny_folder()
    spec = LoadSpec(engine, "judge", path, context_length=256, max_sequences=4, threads=1)
    registry = EngineRegistry()
    plain: Any = await registry.load(replace(spec, rerank_template=PLAIN))
    chat: Any = await registry.load(replace(spec, rerank_template=CHAT))
    try:
        assert "rerank" in plain.info.capabilities
        scores = await plain.score(PAIRS)
        assert (await chat.score(PAIRS)).scores == pytest.approx(scores.scores, abs=0.05)
        assert scores.scores[0] == pytest.approx(await log_odds(plain, PAIRS[0]), abs=0.05)
        long = [PAIRS[0], Pair("What?", "word " * 400)]
        with pytest.raises(ContextLengthExceeded) as refused:
            await plain.score(long)
        assert refused.value.param == "documents.1"
        assert len((await plain.score(long, most=256)).scores) == 2
        cut = await plain.score(long, most=64)
        assert 60 <= cut.prompt_tokens[1] <= 64
    finally:
        await plain.close()
        await chat.close()


async def test_a_model_without_such_a_template_ranks_nothing() -> None:
    engine: Any = await EngineRegistry().load(
        LoadSpec("llama_cpp", "m", smollm2(), context_length=64, threads=1)
    )
    try:
        assert "rerank" not in engine.info.capabilities
        with pytest.raises(UnsupportedFeature):
            await engine.score(PAIRS)
    finally:
        await engine.close()
