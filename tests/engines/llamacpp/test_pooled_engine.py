"""Embeddings by llama.cpp, of a real encoder and of a chat model that is told to pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engines.base import Pair
from engines.errors import CannotLoad, ContextLengthExceeded, EngineError, RequestError, UnsupportedFeature
from engines.llamacpp.model import LlamaModel
from engines.llamacpp.model_cache import ModelCache
from engines.llamacpp.options import LlamaOptions
from engines.llamacpp.pooled_context import PooledContext
from engines.llamacpp.pooled_engine import LlamaPooledEngine
from engines.llamacpp.pooled_opening import pooling_of
from engines.llamacpp.pooled_sizes import STEP, pooled_size
from engines.load_spec import LoadSpec
from engines.registry import EngineRegistry
from engines.vectors import normalise
from support.models import minilm, minilm_references, smollm2

pytestmark = pytest.mark.real


@asynccontextmanager
async def embedder(models: ModelCache | None = None, **options: Any) -> AsyncIterator[LlamaPooledEngine]:
    settings = {"name": "m", "path": minilm(), "threads": 1, **options}
    loaded = await LlamaPooledEngine.load(LlamaOptions(**settings), models or ModelCache())
    try:
        yield loaded
    finally:
        await loaded.close()


async def test_vectors_are_those_of_transformers() -> None:
    """Many at once, and each alone; asleep in between, and refused what cannot be."""
    references = minilm_references()
    async with embedder() as engine:
        info = engine.info
        assert (info.pooling, info.embedding_length, info.context_length) == ("mean", 384, 512)
        assert info.capabilities == {"embeddings", "sleep"}
        inputs = [await engine.tokenize(each.text) for each in references]
        assert [list(each) for each in inputs] == [each.tokens for each in references]
        # So many that they are of several passes, with the same text in the first and the last.
        found = await engine.embed([*inputs, *[inputs[0]] * 40, *inputs])
        assert found.prompt_tokens[: len(inputs)] == tuple(map(len, inputs))
        expected = np.array([each.vector for each in references], dtype=np.float32)
        for rows in (found.vectors[: len(inputs)], found.vectors[-len(inputs) :]):
            cosines = (rows * expected).sum(axis=1) / np.linalg.norm(expected, axis=1)
            assert cosines.min() >= 0.999
        assert np.linalg.norm(found.vectors, axis=1) == pytest.approx(1, abs=1e-5)
        assert engine.stats().prompt_tokens == sum(found.prompt_tokens)

        await engine.sleep()
        with pytest.raises(EngineError, match="closed"):
            await engine.embed(inputs[:1])
        await engine.wake()
        again = await asyncio.gather(*(engine.embed([each]) for each in inputs))
        for one, row in zip(again, found.vectors, strict=False):
            assert float((one.vectors[0] * row).sum()) >= 0.9999
        assert (await engine.health()).ok

        long = await engine.tokenize("word " * 900, most=512)
        assert (len(long), long[0], long[-1]) == (512, 101, 102)
        assert (await engine.embed([long])).prompt_tokens == (512,)
        with pytest.raises(ContextLengthExceeded) as too_long:
            await engine.embed([inputs[0], [*long, 102]])
        assert too_long.value.param == "input.1"
        for bad, words in ([], "has no tokens"), ([101, 30522], "no token 30522"), ([-1], "no token -1"):
            with pytest.raises(RequestError, match=words):
                await engine.embed([bad])
        with pytest.raises(UnsupportedFeature, match="ranks no documents"):
            await engine.score([Pair("q", "d")])


async def test_a_decoder_pools_as_the_catalog_says_and_shares_weights() -> None:
    """The same vector alone and among others: what a pass before left in the cache does not count."""
    models = ModelCache()
    text = tuple(range(100, 140))
    async with embedder(models, path=smollm2(), pooling="last", context_length=256) as engine:
        async with embedder(models, path=smollm2(), pooling="mean", context_length=256) as other:
            alone = (await engine.embed([text])).vectors[0]
            among = (await engine.embed([text[:20], text, text[5:]])).vectors
            assert float((alone * among[1]).sum()) > 0.999
            assert float((alone * among[0]).sum()) < 0.99
            assert engine.info.embedding_length == 576
            assert float((alone * (await other.embed([text])).vectors[0]).sum()) < 0.99


async def test_a_decoder_that_pools_the_last_token_computes_long_texts_in_steps() -> None:
    """As if it were one: what a step costs is bounded, and so is the memory."""
    text = [100 + i % 97 for i in range(600)]
    async with embedder(path=smollm2(), pooling="last", context_length=600) as engine:
        rows = (await engine.embed([text, text[:10]])).vectors
    model = LlamaModel(smollm2())
    size = pooled_size(600, 8192, "last", "llama", offload=False)
    whole = PooledContext(model, replace(size, step=600), threads=1)
    expected = normalise(whole.compute([text]))
    assert float((rows[0] * expected[0]).sum()) > 0.999
    whole.close()
    model.close()
    assert size.memory(10) < replace(size, step=600).memory(10)


def test_sizes() -> None:
    """Never longer than what was trained for, and unasked no longer than is cheap."""
    encoder = pooled_size(None, 512, "mean", "bert", offload=False)
    assert (encoder.tokens, encoder.step, encoder.batch) == (512, 512, 256)
    assert pooled_size(9000, 512, "mean", "bert", offload=False).tokens == 512
    assert pooled_size(None, 32768, "mean", "llama", offload=True).tokens == 2048
    last = pooled_size(None, 32768, "last", "qwen3", offload=True)
    assert (last.tokens, last.step, last.batch) == (8192, STEP, 8192)


async def test_the_registry_loads_what_the_file_is_for() -> None:
    registry = EngineRegistry()
    spec = LoadSpec("llama_cpp", "m", minilm(), threads=1)
    resident = await registry.load(spec)
    try:
        assert resident.info.capabilities == {"embeddings", "sleep"}
    finally:
        await resident.close()


def test_a_chat_model_is_not_pooled_unasked() -> None:
    with pytest.raises(CannotLoad, match="`pooling` in models"):
        pooling_of(LlamaOptions(name="m", path=smollm2()))
