"""The engine over a tiny model of random weights, and SmolLM2 for what needs sense."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engines.base import Chunk, GenerationRequest, Prompt, Sampling, Structure
from engines.batching.thread import EngineThread
from engines.errors import ModelLoadError
from engines.load_spec import LoadSpec
from engines.mlx.engine import MlxEngine
from engines.mlx.sequence import MlxSequence
from support.models import smollm2_folder

pytestmark = pytest.mark.real

GREEDY = Sampling(temperature=0.0)
LINES = Structure("regex", "([a-c]{3} )*")


@asynccontextmanager
async def loaded(path: Path, **fields: Any) -> AsyncIterator[MlxEngine]:
    engine = await MlxEngine.load(LoadSpec("mlx", "m", path, **fields))
    try:
        yield engine
    finally:
        await engine.close()


def prompt(length: int, first: int = 100) -> Prompt:
    return Prompt(tuple(first + (i * 37) % 1000 for i in range(length)))


def request(prompt: Prompt, **fields: Any) -> GenerationRequest:
    return GenerationRequest(
        "r", prompt, **{"sampling": GREEDY, "max_tokens": 8, "ignore_eos": True, **fields}
    )


async def drain(engine: MlxEngine, request: GenerationRequest) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


def tokens(chunks: list[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.token_ids]


def cached(chunks: list[Chunk]) -> int:
    usage = chunks[-1].usage
    assert usage is not None
    return usage.cached_tokens


async def test_seeds_decide_alone_and_in_a_batch(tiny: Path) -> None:
    async with loaded(tiny) as engine:
        wanted = [
            request(prompt(20), sampling=Sampling(seed=1)),
            request(prompt(20), sampling=Sampling(seed=2, top_k=50, temperature=0.7)),
            request(prompt(33), sampling=Sampling(seed=1, frequency_penalty=1.0)),
            request(prompt(20), sampling=Sampling(seed=1), logprobs=2),
            request(prompt(20)),
        ]
        alone = [tokens(await drain(engine, each)) for each in wanted]
        noise = [request(prompt(9), sampling=Sampling()) for _ in range(3)]
        together = await asyncio.gather(*(drain(engine, each) for each in [*wanted, *noise]))
        assert [tokens(chunks) for chunks in together[: len(wanted)]] == alone
        assert alone[0] == alone[3] != alone[1]


async def test_many_at_once_of_all_kinds(tiny: Path) -> None:
    async with loaded(tiny, max_sequences=16) as engine:
        wanted = [
            request(
                prompt(5 + 7 * i, first=100 + i),
                sampling=Sampling(temperature=i % 3 / 2, top_p=0.9, presence_penalty=i % 2),
                logprobs=2 if i % 5 == 0 else None,
                max_tokens=1 + i % 9,
            )
            for i in range(32)
        ]
        answers = await asyncio.gather(*(drain(engine, each) for each in wanted))
        assert [len(tokens(chunks)) for chunks in answers] == [each.max_tokens for each in wanted]
        assert all(chunk.logprobs for chunk in answers[0] if chunk.text)
        assert engine.stats().running == engine.stats().waiting == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": GREEDY, "logprobs": 0},
        {"sampling": Sampling(seed=3, frequency_penalty=0.5), "logprobs": 0},
        {"structure": LINES},
    ],
)
async def test_preemption_changes_no_answer(tiny: Path, fields: dict[str, Any]) -> None:
    """Two sequences begin side by side and outgrow a budget for about one."""
    wanted = [request(prompt(30 + i), max_tokens=280, **fields) for i in range(2)]
    async with loaded(tiny, kv_cache_tokens=840) as engine:
        await engine.prepare(LINES)
        alone = [tokens(await drain(engine, each)) for each in wanted]
        together = await asyncio.gather(*(drain(engine, each) for each in wanted))
        assert engine.stats().preemptions > 0
        assert [len(tokens(chunks)) for chunks in together] == [280] * 2
        assert [tokens(chunks) for chunks in together] == alone


async def test_a_budget_bounds_the_context(tiny: Path) -> None:
    async with loaded(tiny, kv_cache_tokens=300) as engine:
        assert engine.info.context_length == 300
        answers = await asyncio.gather(*(drain(engine, request(prompt(290))) for _ in range(4)))
        assert [len(tokens(chunks)) for chunks in answers] == [8] * 4


async def test_prefixes_are_reused_and_change_nothing(tiny: Path) -> None:
    long = prompt(200)
    turn = request(Prompt((*long.token_ids, 5, 6, 7)))
    async with loaded(tiny, cache_prefixes=False) as engine:
        plain = await drain(engine, turn)
        assert cached(await drain(engine, turn)) == 0
    async with loaded(tiny) as engine:
        first = await drain(engine, request(long))
        again = await drain(engine, request(long))
        assert (cached(first), cached(again)) == (0, 199)
        assert tokens(first) == tokens(again)
        longer = await drain(engine, turn)
        assert cached(longer) >= 200
        assert tokens(longer) == tokens(plain)
        assert engine.stats().cached_tokens == cached(again) + cached(longer)
        # A conversation's next turn has the whole of this one.
        history = (*turn.prompt.token_ids, *tokens(longer), 9)
        assert cached(await drain(engine, request(Prompt(history)))) == len(history) - 1


async def test_an_aborted_prefill_leaves_its_prefix_or_nothing(tiny: Path) -> None:
    async with loaded(tiny, context_length=4096) as engine:
        expected = tokens(await drain(engine, request(prompt(3000))))
    async with loaded(tiny, context_length=4096) as engine:
        stream = engine.generate(request(prompt(3000)))
        while not engine.stats().running:
            await asyncio.sleep(0)
        stream.close()
        assert tokens(await drain(engine, request(prompt(3000)))) == expected


async def test_loading_reports_progress_and_can_be_given_up(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fractions: list[float] = []
    spec = LoadSpec("mlx", "m", tiny)
    engine = await MlxEngine.load(spec, fractions.append)
    await engine.close()
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)

    entered, proceed = threading.Event(), threading.Event()

    def hold(fraction: float) -> None:
        entered.set()
        proceed.wait(5)

    started: list[EngineThread[MlxSequence]] = []

    def spy(*args: Any) -> EngineThread[MlxSequence]:
        started.append(EngineThread(*args))
        return started[0]

    monkeypatch.setattr("engines.mlx.engine.EngineThread", spy)
    load = asyncio.create_task(MlxEngine.load(spec, hold))
    await asyncio.to_thread(entered.wait, 5)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    proceed.set()
    assert await asyncio.to_thread(started[0].join, 5)


async def test_what_mlx_lm_cannot_load_is_explained(tiny: Path, tmp_path: Path) -> None:
    async def refused(says: str, **fields: Any) -> None:
        with pytest.raises(ModelLoadError, match=says) as refusal:
            await MlxEngine.load(LoadSpec("mlx", "m", folder, **fields))
        assert refusal.value.is_permanent

    folder = tmp_path / "odd"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    await refused("not quantised", quantization="4bit")
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "perceptron"}))
    await refused("architecture 'perceptron'")
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    await refused("cannot load")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    await refused("cannot load")


async def test_a_base_model_has_no_chat(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "base", ignore=shutil.ignore_patterns("*.jinja"))
    async with loaded(tmp_path / "base") as engine:
        assert engine.info.capabilities == {"adapters", "completion", "structured"}


async def test_a_real_model_makes_sense_with_a_cached_prefix() -> None:
    async with loaded(smollm2_folder(), context_length=512) as engine:
        question = await engine.render_chat([{"role": "user", "content": "What is the capital of France?"}])
        first = await drain(engine, request(question, max_tokens=7))
        again = await drain(engine, request(question, max_tokens=7))
        assert "Paris" in "".join(chunk.text for chunk in first)
        assert tokens(again) == tokens(first)
        assert cached(again) == len(question.token_ids) - 1
