"""Embeddings and scores through vLLM's pooling runner, compared with transformers'."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from engines.base import Embeds, Pair
from engines.errors import CannotLoad, ContextLengthExceeded, EngineError, RequestError, UnsupportedFeature
from engines.load_spec import LoadSpec
from engines.vllm import loading
from support.models import tiny_embedder
from support.tiny_reranker import CONTEXT, cross_encoder_scores, tiny_cross_encoder
from support.vectors import cosines, reference

pytestmark = [pytest.mark.real]

SPEC = LoadSpec(
    "vllm",
    "m",
    tiny_embedder(),
    context_length=256,
    kv_cache_tokens=4096,
    max_sequences=8,
    dtype="float32",
    options={"enforce_eager": True},
)


async def test_vectors_are_those_of_transformers_until_it_is_closed() -> None:
    """All in one test: each start takes most of a minute."""
    resident = await loading.load(SPEC)
    engine = cast(Embeds, resident)
    info = resident.info
    assert (info.capabilities, info.pooling, info.embedding_length) == ({"embeddings"}, "last", 64)
    texts = [await engine.tokenize(text) for text in ("a ship", "the sea and its crew")]
    assert b"".join(engine.labels(texts[0])) == b"a ship"
    texts.append(tuple(range(100, 300)))
    whole, again = await asyncio.gather(engine.embed(texts), engine.embed(texts[1:2], request_id="r"))
    assert min(cosines(whole.vectors, reference(tiny_embedder(), texts, "last"))) > 0.999
    assert min(cosines(whole.vectors[1:2], again.vectors)) > 0.999
    assert whole.prompt_tokens == tuple(map(len, texts))
    with pytest.raises(ContextLengthExceeded) as long:
        await engine.embed([[1], [1] * 257])
    assert long.value.param == "input.1"
    with pytest.raises(RequestError) as foreign:
        await engine.embed([[1], [10**9]])
    assert foreign.value.param == "input.1"
    dropped = asyncio.create_task(engine.embed(texts * 20))
    await asyncio.sleep(0)
    dropped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dropped
    begun = asyncio.create_task(engine.embed(texts * 100))
    await asyncio.sleep(0)
    await resident.close()
    for call in (begun, engine.embed([[1]])):
        with pytest.raises(EngineError):
            await call
    assert not (await resident.health()).ok


async def test_scores_are_those_of_transformers(tmp_path: Path) -> None:
    folder = tiny_cross_encoder(tmp_path / "tiny")
    settings = {"path": folder, "context_length": CONTEXT, "kv_cache_tokens": None}
    resident = await loading.load(replace(SPEC, **settings))
    engine = cast(Embeds, resident)
    try:
        assert (resident.info.capabilities, resident.info.pooling) == ({"rerank"}, "rank")
        texts = [("paris is blue ?", "the sea is blue"), ("what", "the capital of france is paris")]
        pairs = [Pair(*text) for text in texts]
        scores = await engine.score(pairs)
        assert scores.scores == pytest.approx(cross_encoder_scores(folder, texts), abs=0.005)
        assert scores.prompt_tokens == (11, 10)
        # What a client writes is no separator.
        assert (await engine.score([Pair("what", "a [SEP] b")])).prompt_tokens[0] > 6
        long = [*pairs, Pair("what", "sea " * CONTEXT)]
        with pytest.raises(ContextLengthExceeded) as refused:
            await engine.score(long)
        assert refused.value.param == "documents.2"
        cut = await engine.score(long, most=9)
        assert cut.prompt_tokens == (9, 9, 9)
        with pytest.raises(UnsupportedFeature, match="makes no embeddings"):
            await engine.embed([[2, 3]])
    finally:
        await resident.close()


async def test_what_has_no_head_is_refused_before_vllm_starts() -> None:
    with pytest.raises(CannotLoad, match="no head that makes scores"):
        await loading.load(replace(SPEC, pooling="rank"))
