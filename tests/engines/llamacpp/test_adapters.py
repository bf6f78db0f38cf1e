"""LoRA adapters on real models: beside each other in a batch, each answers as if it were alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engines.base import Adapter, GenerationRequest, Prompt, Sampling
from engines.errors import ModelLoadError, UnsupportedFeature
from engines.llamacpp.adapter_file import check_adapters
from engines.llamacpp.engine import LlamaEngine, LlamaOptions
from engines.llamacpp.model_cache import ModelCache
from engines.load_spec import LoadSpec
from support.lora import lora_gguf
from support.tiny_gguf import WIDTH, tiny_gguf

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

PROMPT = "once upon a time there was a house by the sea"
NAMES = (None, "one", "two")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("base") / "tiny.gguf")


@pytest.fixture(scope="module")
def adapters(base: Path) -> tuple[Adapter, ...]:
    folder = base.parent
    return tuple(
        Adapter(name, lora_gguf(folder / f"{name}.gguf", base, seed=seed, strength=0.3))
        for seed, name in enumerate(("one", "two"), 1)
    )


async def load(base: Path, *adapters: Adapter, **options: object) -> LlamaEngine:
    settings = {"name": "m", "path": base, "context_length": 512, "max_sequences": 8, "threads": 1, **options}
    return await LlamaEngine.load(LlamaOptions(adapters=adapters, **settings), ModelCache())  # type: ignore[arg-type]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(base: Path, adapters: tuple[Adapter, ...]) -> AsyncIterator[LlamaEngine]:
    loaded = await load(base, *adapters)
    yield loaded
    await loaded.close()


async def answer(
    engine: LlamaEngine, adapter: str | None, *, prompt: str = PROMPT, tokens: int = 12
) -> tuple[list[tuple[int, float]], int]:
    """Tokens with their log probabilities, and how much of the prompt was cached."""
    ids = await engine.tokenize(prompt)
    request = GenerationRequest(
        request_id="r",
        prompt=Prompt(ids, prompt),
        sampling=Sampling(temperature=0.0),
        max_tokens=tokens,
        ignore_eos=True,
        logprobs=0,
        adapter=adapter,
    )
    drawn, cached = [], 0
    async for chunk in engine.generate(request):
        drawn += [(each.chosen.token_id, each.chosen.logprob) for each in chunk.logprobs or ()]
        cached = chunk.usage.cached_tokens if chunk.usage else cached
    return drawn, cached


@pytest.mark.parametrize("kv_cells", [None, 1024], ids=["split", "pooled"])
async def test_each_answers_beside_others_as_it_does_alone(
    base: Path, adapters: tuple[Adapter, ...], kv_cells: int | None
) -> None:
    """To the last bit, where each sequence has cells of its own; in a pool sums have another order."""
    engine = await load(base, *adapters, cache_prefixes=False, kv_cells=kv_cells)
    alone = [(await answer(engine, name))[0] for name in NAMES]
    assert len(set(map(str, alone))) == len(NAMES)
    together = [drawn for drawn, _ in await asyncio.gather(*(answer(engine, name) for name in NAMES))]
    if kv_cells is None:
        assert together == alone
    assert [[token for token, _ in drawn] for drawn in together] == [
        [token for token, _ in drawn] for drawn in alone
    ]
    await engine.close()


@pytest.mark.parametrize("kv_cells", [None, 2048], ids=["split", "pooled"])
async def test_a_prefix_is_of_one_adapter(
    base: Path, adapters: tuple[Adapter, ...], kv_cells: int | None
) -> None:
    engine = await load(base, *adapters, kv_cells=kv_cells)
    prompt = "a prompt that nobody has asked so far, and which is longer than what is computed again" * 3
    firsts = [await answer(engine, name, prompt=prompt, tokens=2) for name in NAMES]
    again = [await answer(engine, name, prompt=prompt, tokens=2) for name in NAMES]
    assert [drawn for drawn, _ in firsts] == [drawn for drawn, _ in again]
    assert [cached for _, cached in firsts] == [0, 0, 0]
    assert all(cached > 0 for _, cached in again)
    # Of several that begin alike and at once, none waits for another adapter's prompt to be computed.
    other = "zebras " * 30
    together = await asyncio.gather(*(answer(engine, name, prompt=other, tokens=2) for name in NAMES * 2))
    assert all(cached < 5 for _, cached in together[:3])
    assert all(cached > 100 for _, cached in together[3:])
    await engine.remove_adapter("one")
    await engine.add_adapter(adapters[0])
    assert (await answer(engine, "one", prompt=prompt, tokens=2))[1] == 0
    await engine.close()


async def test_scale_counts(engine: LlamaEngine, base: Path, adapters: tuple[Adapter, ...]) -> None:
    await engine.add_adapter(Adapter("nothing", adapters[0].path, scale=1e-9))
    plain, nothing = [await answer(engine, name) for name in (None, "nothing")]
    assert [token for token, _ in nothing[0]] == [token for token, _ in plain[0]]
    await engine.remove_adapter("nothing")


async def test_one_in_use_ends_before_it_goes(engine: LlamaEngine, adapters: tuple[Adapter, ...]) -> None:
    memory = engine.info.memory
    await engine.add_adapter(Adapter("late", adapters[1].path))
    assert engine.info.memory > memory
    running = asyncio.create_task(answer(engine, "late", tokens=60))
    while not engine.stats().running:
        await asyncio.sleep(0.001)
    removing = asyncio.create_task(engine.remove_adapter("late"))
    await asyncio.sleep(0)
    with pytest.raises(UnsupportedFeature, match=r"no adapter 'late' \(loaded: one, two\)"):
        await answer(engine, "late")
    await removing
    assert running.done()
    assert len(running.result()[0]) == 60
    assert engine.info.memory == memory
    assert (await answer(engine, "two"))[0] == (await answer(engine, "two"))[0]


async def test_sleep_keeps_them(base: Path, adapters: tuple[Adapter, ...]) -> None:
    loaded = await load(base, *adapters, kv_cells=1024)
    before = [(await answer(loaded, name))[0] for name in NAMES]
    await loaded.sleep()
    await loaded.wake()
    assert [(await answer(loaded, name))[0] for name in NAMES] == before
    await loaded.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"metadata": {"general.architecture": "qwen2"}}, "for models of the architecture 'qwen2'"),
        ({"metadata": {"general.type": "model"}}, "general.type is 'model'"),
        ({"metadata": {"adapter.lora.alpha": "8"}}, "adapter.lora.alpha is no number"),
        ({"shapes": {"blk.0.attn_q.weight": (WIDTH, WIDTH // 2)}}, "wrong size"),
        ({"shapes": {"blk.7.attn_q.weight": (WIDTH, WIDTH)}}, r"the model has no blk\.7"),
        ({"shapes": {"output_norm.weight": (WIDTH, WIDTH)}}, "wrong size"),
    ],
)
async def test_what_does_not_fit_is_refused(base: Path, tmp_path: Path, change: dict, reason: str) -> None:
    path = lora_gguf(tmp_path / "bad.gguf", base, **change)
    with pytest.raises(ModelLoadError, match=reason):
        check_adapters(LoadSpec("llama_cpp", "m", base, adapters=(Adapter("bad", path),)))
