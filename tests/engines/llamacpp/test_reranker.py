"""Cross-encoders on llama.cpp: their scores are those that transformers' model of the same weights gives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engines.base import Pair
from engines.errors import CannotLoad, ContextLengthExceeded, EngineError
from engines.load_spec import LoadSpec
from engines.registry import EngineRegistry
from support.tiny_gguf import tiny_gguf
from support.tiny_reranker import CONTEXT, tiny_reranker

QUERY = "what is the capital of france ?"
# transformers' BertForSequenceClassification with the weights of `tiny_reranker`, all as sentence A, of
# `[CLS] query [SEP] document [SEP]`.
EXPECTED = {
    "paris is the capital of france": -0.54220879,
    "berlin is the capital of germany": -0.52554649,
    "the sea is blue": -0.33492956,
}


async def load(path: Path, **settings: Any) -> Any:
    return await EngineRegistry().load(LoadSpec("llama_cpp", "tiny", path, threads=1, **settings))


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Any]:
    engine = await load(tiny_reranker(tmp_path / "tiny.gguf"))
    yield engine
    await engine.close()


async def test_scores_are_the_models(engine: Any) -> None:
    assert engine.info.capabilities >= {"rerank"}
    assert engine.info.capabilities.isdisjoint({"chat", "completion", "embeddings"})
    scores = await engine.score([Pair(QUERY, document) for document in EXPECTED])
    assert scores.scores == pytest.approx(tuple(EXPECTED.values()), abs=0.005)
    assert scores.prompt_tokens == (16, 16, 14)
    # What a client writes is no separator.
    assert (await engine.score([Pair(QUERY, "a [SEP] b")])).prompt_tokens[0] > 13


async def test_what_is_too_long_is_named_or_cut(engine: Any) -> None:
    pairs = [Pair(QUERY, "the sea"), Pair(QUERY, "sea " * CONTEXT)]
    with pytest.raises(ContextLengthExceeded) as refused:
        await engine.score(pairs)
    assert refused.value.param == "documents.1"
    assert (await engine.score(pairs, most=CONTEXT)).prompt_tokens == (12, CONTEXT)
    with pytest.raises(ContextLengthExceeded) as refused:
        await engine.score([Pair("sea " * CONTEXT, "the sea")], most=CONTEXT)
    assert refused.value.param == "query"


@pytest.mark.parametrize("labels", [("positive", "negative", "neutral")])
async def test_what_sorts_texts_into_kinds_is_no_reranker(tmp_path: Path, labels: tuple[str, ...]) -> None:
    with pytest.raises(CannotLoad, match="no reranker"):
        await load(tiny_reranker(tmp_path / "tiny.gguf", labels=labels))


async def test_it_makes_no_vectors(engine: Any) -> None:
    with pytest.raises(EngineError, match="makes no embeddings"):
        await engine.embed([(2, 3)])


async def test_a_template_for_pairs_makes_a_model_that_generates_a_reranker(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "judge.gguf", rerank="Query: {query}\nDocument: {document}\nAnswer:")
    engine = await load(path, context_length=128)
    try:
        assert {"completion", "rerank"} <= engine.info.capabilities
        scores = await engine.score([Pair("a", "b"), Pair("a", "b"), Pair("a", "c")])
        first, again, other = scores.scores
        assert (again, other != first) == (pytest.approx(first, abs=1e-3), True)
    finally:
        await engine.close()
