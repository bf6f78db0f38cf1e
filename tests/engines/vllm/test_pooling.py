"""Embeddings through vLLM's pooling runner, compared with transformers' states."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from engines.base import Embeds
from engines.errors import CannotLoad, ContextLengthExceeded, EngineError, RequestError
from engines.load_spec import LoadSpec
from engines.vllm import loading
from support.models import tiny_embedder
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


async def test_what_ranks_documents_is_refused_before_vllm_starts() -> None:
    with pytest.raises(CannotLoad, match="ranks no documents"):
        await loading.load(LoadSpec("vllm", "m", tiny_embedder(), pooling="rank"))
