"""N-gram drafts on a real model: the same answers to the last bit of a log probability, in fewer steps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import reduce
from typing import Any

import pytest

from engines.base import Chunk, GenerationRequest, Sampling, Structure
from engines.llamacpp.engine import LlamaEngine, LlamaOptions
from engines.llamacpp.model_cache import ModelCache
from engines.stream import merge
from support.models import smollm2

pytestmark = pytest.mark.real

POOLED, SPLIT = {"kv_cells": 1024}, {"kv_cells": 1024, "max_sequences": 2}
COPY = (
    "Correct the spelling of this text and repeat it:\n\n"
    "The lighthouse on the northern cape was built in 1874 by a crew of forty men. "
    "It stood on a cliff of grey stone, and its lamp could be seen for thirty miles."
)
ORDINARY = "Tell me a story about a ship."
FORM = Structure("regex", "(The lighthouse on the northern cape[.] ){3}")
GREEDY = Sampling(temperature=0.0)
ASKED = [
    (COPY, {"sampling": GREEDY, "max_tokens": 40}),
    (COPY, {"sampling": Sampling(0.8, seed=3, frequency_penalty=0.1), "max_tokens": 36}),
    (ORDINARY, {"sampling": GREEDY, "max_tokens": 16}),
    (ORDINARY, {"sampling": Sampling(1.2, top_k=40, seed=5), "max_tokens": 16, "stop": (" the",)}),
]


@asynccontextmanager
async def engine(models: ModelCache, **options: Any) -> AsyncIterator[LlamaEngine]:
    settings = {"context_length": 512, "threads": 1, **options}
    loaded = await LlamaEngine.load(LlamaOptions("m", smollm2(), **settings), models)
    try:
        yield loaded
    finally:
        await loaded.close()


async def ask(engine: LlamaEngine, text: str, **fields: Any) -> Chunk:
    prompt = await engine.render_chat([{"role": "user", "content": text}])
    request = GenerationRequest("r", prompt, logprobs=1, **fields)
    return reduce(merge, [chunk async for chunk in engine.generate(request)])


@pytest.mark.parametrize(("layout", "asked"), [(POOLED, ASKED), (SPLIT, ASKED[:1])], ids=["pooled", "split"])
async def test_drafts_change_no_bit_of_an_answer(
    layout: dict[str, int], asked: list[tuple[str, dict[str, Any]]]
) -> None:
    models = ModelCache()
    async with engine(models, **layout) as plain, engine(models, **layout, ngram_draft=7) as drafting:
        for text, fields in asked:
            assert await ask(drafting, text, **fields) == await ask(plain, text, **fields)
        figures = drafting.metrics()
        assert 0.6 < figures["accepted_tokens_total"] / figures["draft_tokens_total"] <= 1
        saved = plain.stats().steps - drafting.stats().steps
        assert saved == figures["accepted_tokens_total"] > 10
        assert plain.metrics() == {}
        assert drafting.stats().kv_used == 0
        # A mask must see each token before it can tell the next ones.
        await drafting.prepare(FORM)
        await ask(drafting, COPY, sampling=GREEDY, structure=FORM, max_tokens=40)
        assert drafting.metrics() == figures
