"""The same question, the same answer: to the last bit of a log probability, in llama.cpp itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engines.base import GenerationRequest, Prompt, Sampling
from engines.llamacpp.engine import LlamaEngine, LlamaOptions
from engines.llamacpp.model_cache import ModelCache
from support.tiny_gguf import EOS, tiny_gguf

pytestmark = pytest.mark.real

POOLED, SPLIT = {"kv_cells": 4096}, {"kv_cells": 8192, "max_sequences": 4}
GREEDY = Sampling(temperature=0.0)
Answer = list[tuple[int, float]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tokenizer puts the end of text behind every text."""
    return tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", add_eos=True)


@asynccontextmanager
async def engine(path: Path, **options: Any) -> AsyncIterator[LlamaEngine]:
    options = {"context_length": 2048, "threads": 1, "ngram_draft": 7, **options}
    loaded = await LlamaEngine.load(LlamaOptions("m", path, **options), ModelCache())
    try:
        yield loaded
    finally:
        await loaded.close()


async def ask(engine: LlamaEngine, text: str, sampling: Sampling = GREEDY, max_tokens: int = 6) -> Answer:
    prompt = await engine.render_chat([{"role": "user", "content": text}])
    return await answer(engine, GenerationRequest("r", prompt, sampling, max_tokens, logprobs=0))


async def answer(engine: LlamaEngine, request: GenerationRequest) -> Answer:
    chunks = [chunk async for chunk in engine.generate(request)]
    return [(entry.chosen.token_id, entry.chosen.logprob) for chunk in chunks for entry in chunk.logprobs]


@pytest.mark.parametrize("layout", [POOLED, SPLIT], ids=["pooled", "split"])
async def test_an_idle_engine_repeats_itself_however_it_was_used(tiny: Path, layout: dict[str, int]) -> None:
    """The cache is filled, shared and emptied by others meanwhile; up to 700 tokens are a prompt."""
    questions = [f"Write of number {i}." + f" Think of {i}." * (i % 5 * 12) for i in range(20)]
    async with engine(tiny, **layout) as ours:
        await asyncio.gather(*(ask(ours, f"Story {i}: {q}") for i, q in enumerate(questions[:8])))
        first = [await ask(ours, question) for question in questions]
        assert [await ask(ours, question) for question in questions] == first
        await asyncio.gather(*(ask(ours, f"Tale {i}: {q}") for i, q in enumerate(questions[12:])))
        assert [await ask(ours, question) for question in reversed(questions)] == first[::-1]
        drawing = Sampling(temperature=1.5, seed=4)
        assert await ask(ours, questions[9], drawing) == await ask(ours, questions[9], drawing)
    async with engine(tiny, cache_prefixes=False, **layout) as fresh:
        assert [await ask(fresh, question) for question in questions[:5]] == first[:5]


async def test_several_answers_repeat_themselves_and_differ(tiny: Path) -> None:
    """Those of one request: they are computed side by side, after its prompt."""
    async with engine(tiny, **POOLED) as ours:

        async def answers(text: str) -> list[Answer]:
            prompt = await ours.render_chat([{"role": "user", "content": text}])
            return await asyncio.gather(
                *(
                    answer(ours, GenerationRequest("r", prompt, Sampling(1.5, seed=n), 8 + n, logprobs=0))
                    for n in range(4)
                )
            )

        for question in ("Hi", "Tell of the sea. " * 10):
            first = await answers(question)
            assert len({tuple(each) for each in first}) == 4
            assert await answers(question) == first
            await ask(ours, "something else " * 20)
            assert await answers(question) == first


async def test_conversations_go_on_the_same_way_after_others(tiny: Path) -> None:
    """They come back from the stash, whose cells are where they were."""
    async with engine(tiny, **POOLED) as ours:
        token_ids = await ours.tokenize("Once upon a time there was a small ship. " * 5)
        request = GenerationRequest("r", Prompt(token_ids), GREEDY, 40, ignore_eos=True, logprobs=0)
        said = tuple(token for token, _ in await answer(ours, request))
        longer = GenerationRequest("r", Prompt((*token_ids, *said, 40, 41)), GREEDY, 8, logprobs=0)
        first = await answer(ours, longer)
        for _ in range(2):
            await ask(ours, "something else " * 20)
            chunks = [chunk async for chunk in ours.generate(longer)]
            assert chunks[-1].usage
            assert chunks[-1].usage.cached_tokens == len(longer.prompt.token_ids) // 64 * 64
            assert await answer(ours, longer) == first


async def test_nothing_is_put_behind_a_prompt(tiny: Path) -> None:
    async with engine(tiny) as ours:
        assert ours._model.tokenize("Hi", add_special=True)[-1] == EOS
        assert EOS not in await ours.tokenize("Hi")
        assert EOS not in (await ours.render_chat([{"role": "user", "content": "Hi"}])).token_ids
        assert EOS not in await ours.tokenize("a long text " * 100)
        assert (await ours.tokenize(""))[0] == 1
