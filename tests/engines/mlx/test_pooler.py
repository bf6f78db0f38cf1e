"""Embeddings from a decoder of random weights, compared with transformers' states."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest

from engines.base import Embeds, Pair, Resident
from engines.errors import CannotLoad, ContextLengthExceeded, EngineError, RequestError, UnsupportedFeature
from engines.load_spec import LoadSpec
from engines.mlx import loading, pooler
from support.models import tiny_embedder
from support.vectors import cosines, reference

pytestmark = pytest.mark.real

TEXTS = ("a ship", "the sea, its crew and a long way home", "x" * 9)


def spec(path: Path | None = None, **fields: Any) -> LoadSpec:
    return LoadSpec("mlx", "m", path or tiny_embedder(), context_length=256, **fields)


async def load(**fields: Any) -> tuple[Embeds, Resident]:
    resident = await loading.load(spec(**fields))
    return cast(Embeds, resident), resident


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
async def test_vectors_are_those_of_transformers(pooling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of texts in one pass, padded to the longest, and of one that takes several."""
    monkeypatch.setattr(pooler, "PASS_TOKENS", 64)
    engine, resident = await load(pooling=None if pooling == "last" else pooling)
    info = resident.info
    assert (info.capabilities, info.pooling, info.embedding_length) == ({"embeddings"}, pooling, 64)
    texts = [*[await engine.tokenize(text) for text in TEXTS], tuple(range(100, 250))]
    whole, again = await asyncio.gather(engine.embed(texts), engine.embed(texts[1:2]))
    assert min(cosines(whole.vectors, reference(tiny_embedder(), texts, pooling))) > 0.999
    assert min(cosines(whole.vectors[1:2], again.vectors)) > 0.999
    assert whole.prompt_tokens == tuple(map(len, texts))
    assert b"".join(engine.labels(texts[0])) == b"a ship"
    assert resident.stats().prompt_tokens == sum(map(len, [*texts, texts[1]]))
    await resident.close()


async def test_what_cannot_be_embedded_is_refused_by_its_place() -> None:
    engine, resident = await load()
    with pytest.raises(ContextLengthExceeded) as long:
        await engine.embed([[1], [1] * 257])
    assert long.value.param == "input.1"
    for wrong in ([], [10**9]):
        with pytest.raises(RequestError) as refusal:
            await engine.embed([[1], wrong])
        assert refusal.value.param == "input.1"
    with pytest.raises(UnsupportedFeature):
        await engine.score([Pair("a", "b")])
    begun = asyncio.create_task(engine.embed([[1] * 200] * 100))
    await asyncio.sleep(0)
    await resident.close()
    for call in (begun, engine.embed([[1]])):
        with pytest.raises(EngineError):
            await call
    assert not (await resident.health()).ok


async def test_models_of_which_mlx_makes_no_vectors_are_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(tiny_embedder(), folder)
    config = json.loads((folder / "config.json").read_text())

    async def refused(says: str, **fields: Any) -> None:
        (folder / "config.json").write_text(json.dumps(config | fields))
        with pytest.raises(CannotLoad, match=says):
            await loading.load(spec(folder))

    await refused("bert is an encoder", model_type="bert")
    await refused("looks ahead", use_bidirectional_attention=True)
    await refused("ranks? documents|rank documents", architectures=["Qwen3ForSequenceClassification"])
    dense = '[{"type": "sentence_transformers.models.Dense"}]'
    (folder / "modules.json").write_text(dense)
    await refused("dense layers")
    (folder / "modules.json").write_text("[]")
    shutil.rmtree(folder / "1_Pooling")
    await refused("pooling: last")
