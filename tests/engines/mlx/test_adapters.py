"""LoRA adapters with MLX: beside each other in a batch, each answers as if it were alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engines.base import Adapter, GenerationRequest, Prompt, Sampling
from engines.errors import ModelLoadError, UnsupportedFeature
from engines.load_spec import LoadSpec
from engines.mlx.adapter_folder import check_adapters
from engines.mlx.engine import MlxEngine
from support.lora import lora_folder
from support.models import tiny_folder

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

NAMES = (None, "peft", "mlx")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Adapter, ...]:
    folder = tmp_path_factory.mktemp("adapters")
    return tuple(
        Adapter(form, lora_folder(folder / form, tiny_folder(), seed=seed, strength=0.5, form=form))
        for seed, form in enumerate(("peft", "mlx"), 1)
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(adapters: tuple[Adapter, ...]) -> AsyncIterator[MlxEngine]:
    spec = LoadSpec("mlx", "tiny", tiny_folder(), context_length=512, max_sequences=4, adapters=adapters)
    loaded = await MlxEngine.load(spec)
    yield loaded
    await loaded.close()


async def answer(
    engine: MlxEngine, adapter: str | None, *, prompt: str = "once upon a time", tokens: int = 8
) -> tuple[list[tuple[int, float]], int]:
    """Tokens with their log probabilities, and how much of the prompt was cached."""
    request = GenerationRequest(
        request_id="r",
        prompt=Prompt(await engine.tokenize(prompt)),
        sampling=Sampling(temperature=0.0),
        max_tokens=tokens,
        ignore_eos=True,
        logprobs=0,
        adapter=adapter,
    )
    drawn, cached = [], 0
    async for chunk in engine.generate(request):
        drawn += [(each.chosen.token_id, each.chosen.logprob) for each in chunk.logprobs]
        cached = chunk.usage.cached_tokens if chunk.usage else cached
    return drawn, cached


async def test_each_answers_beside_others_as_it_does_alone(engine: MlxEngine) -> None:
    """And with a prefix of its own: those of others are in the cache by then."""
    assert "adapters" in engine.info.capabilities
    prompt = "a prompt of some length, which is asked for the first time"
    alone = [await answer(engine, name, prompt=prompt) for name in NAMES]
    assert [cached for _, cached in alone] == [0, 0, 0]
    assert len({str(drawn) for drawn, _ in alone}) == len(NAMES)
    again = [await answer(engine, name, prompt=prompt) for name in NAMES]
    assert all(cached > 0 for _, cached in again)
    together = await asyncio.gather(*(answer(engine, name, prompt=prompt) for name in NAMES))
    assert [drawn for drawn, _ in together] == [drawn for drawn, _ in again]


async def test_one_in_use_ends_before_it_goes(engine: MlxEngine, adapters: tuple[Adapter, ...]) -> None:
    await engine.add_adapter(Adapter("late", adapters[0].path))
    running = asyncio.create_task(answer(engine, "late", tokens=40))
    while not engine.stats().running:
        await asyncio.sleep(0.001)
    await engine.remove_adapter("late")
    assert running.done()
    assert len(running.result()[0]) == 40
    with pytest.raises(UnsupportedFeature, match="no adapter 'late'"):
        await answer(engine, "late")


async def test_scale_counts(engine: MlxEngine, adapters: tuple[Adapter, ...]) -> None:
    await engine.add_adapter(Adapter("nothing", adapters[0].path, scale=0.0))
    plain, nothing = [(await answer(engine, name, prompt="scales"))[0] for name in (None, "nothing")]
    assert nothing == plain
    await engine.remove_adapter("nothing")


async def test_what_is_of_another_model_is_refused(engine: MlxEngine, tmp_path: Path) -> None:
    config = json.loads((tiny_folder() / "config.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    for change, reason in (
        ({"hidden_size": 2 * config["hidden_size"]}, "another size"),
        ({"num_hidden_layers": 9}, "no linear layer"),
    ):
        (other / "config.json").write_text(json.dumps(config | change))
        path = lora_folder(tmp_path / reason.replace(" ", "-"), other)
        with pytest.raises(ModelLoadError, match=reason):
            await engine.add_adapter(Adapter("bad", path))
    assert (await answer(engine, None))[0]


async def test_what_mlx_does_not_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"has no .*adapter_config"):
        check_adapters([Adapter("a", tmp_path)])
    path = lora_folder(tmp_path / "dora", tiny_folder())
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(ModelLoadError, match="has use_dora"):
        check_adapters([Adapter("a", path)])
