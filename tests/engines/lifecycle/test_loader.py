"""From a model's name to a load: whose wishes count, and what a load is expected to take."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from engines.base import Engine
from engines.errors import ModelLoadError
from engines.fake import FakeEngine
from engines.lifecycle.loader import CONVERSION_SHARE, LoadDefaults, ModelLoader
from engines.lifecycle.states import DEFAULT_OPTIONS, LoadOptions
from engines.load_spec import LoadSpec
from engines.machine.footprint import Footprint
from engines.machine.platform import Facts
from engines.models import gguf
from engines.models.library import Library
from engines.progress import Progress
from engines.registry import EngineRegistry
from support.models import bundled

GIB = 2**30
FACTS = Facts("linux", "x86_64", "3.11", 2, 2, 16 * GIB, 8 * GIB, packages={"llama_cpp": "", "mlx_lm": ""})
CATALOG = """
defaults: {keep_alive: 5m}
models:
  - {name: plain, path: plain.gguf}
  - {name: tuned, path: plain.gguf, context_length: 512, slots: 3, kv_cache_tokens: 1024, threads: 1,
     pin: true}
  - {name: away, hub: org/away}
  - {name: made-up, engine: fake}
"""


class SpyRegistry(EngineRegistry):
    """Loads nothing; remembers what it was to load."""

    spec: LoadSpec

    async def load(self, spec: LoadSpec, progress: Progress | None = None) -> Engine:
        self.spec = spec
        if progress is not None:
            progress(0.5)
        return FakeEngine(spec.name)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    (tmp_path / "plain.gguf").write_bytes(bundled().read_bytes())
    (tmp_path / "models.yaml").write_text(CATALOG)
    return Library(tmp_path, tmp_path / "models.yaml")


def loader(library: Library, registry: EngineRegistry | None = None, facts: Facts = FACTS) -> ModelLoader:
    defaults = LoadDefaults(context_length=2048, max_sequences=8, keep_alive=60.0)
    return ModelLoader(library, registry or EngineRegistry(), defaults, facts, library.base / "converted")


async def spec_of(library: Library, name: str, options: LoadOptions = DEFAULT_OPTIONS) -> LoadSpec:
    registry = SpyRegistry()
    await loader(library, registry).load(name, options, lambda phase, fraction: None)
    return registry.spec


async def test_the_catalog_counts_before_the_settings_and_options_before_both(library: Library) -> None:
    plain, tuned = await spec_of(library, "plain"), await spec_of(library, "tuned")
    assert (plain.engine, plain.context_length, plain.max_sequences) == ("llama_cpp", 2048, 8)
    assert (tuned.context_length, tuned.max_sequences, tuned.kv_cache_tokens, tuned.threads) == (
        512,
        3,
        1024,
        1,
    )
    asked = await spec_of(library, "tuned", LoadOptions(context_length=256))
    assert asked.context_length == 256


@pytest.mark.parametrize("tokens", [8192, 100_000])
async def test_a_context_beyond_the_models_is_told(
    library: Library, caplog: pytest.LogCaptureFixture, tokens: int
) -> None:
    """The bundled model was trained for 8,192 tokens."""
    await spec_of(library, "plain", LoadOptions(context_length=tokens))
    told = [each for each in caplog.messages if each.startswith("model plain was trained for 8192 tokens")]
    assert [f"at {tokens}," in each for each in told] == [True] * (tokens > 8192)


async def test_retention(library: Library) -> None:
    assert loader(library).retention("tuned").pin
    assert loader(library).retention("plain").keep_alive == 300.0


async def test_an_estimate_is_weights_and_cache(library: Library) -> None:
    size = bundled().stat().st_size
    small = loader(library).estimate("tuned", DEFAULT_OPTIONS)
    large = loader(library).estimate("tuned", LoadOptions(context_length=8192))
    assert size < small.ram < size + 0.2 * GIB
    assert small == large  # the cache's size is given
    plain = loader(library).estimate("plain", DEFAULT_OPTIONS)
    longer = loader(library).estimate("plain", LoadOptions(context_length=8192))
    assert longer.ram > plain.ram
    assert loader(library).estimate("made-up", DEFAULT_OPTIONS) == Footprint()


async def test_what_cannot_be_loaded_says_what_to_do(library: Library) -> None:
    with pytest.raises(ModelLoadError, match="enginehouse pull away"):
        loader(library).estimate("away", DEFAULT_OPTIONS)
    with pytest.raises(ModelLoadError, match="make serve"):
        loader(library, facts=replace(FACTS, packages={})).estimate("plain", DEFAULT_OPTIONS)
    with pytest.raises(ModelLoadError, match="GGUF"):
        loader(library).estimate("plain", LoadOptions(engine="mlx"))


async def test_headers_are_read_off_the_loop_and_once(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    read = gguf.read_header

    def noted(path: Path) -> gguf.GgufHeader:
        threads.append(threading.current_thread().name)
        return read(path)

    monkeypatch.setattr(gguf, "read_header", noted)
    models = loader(library)
    os.utime(library.base / "plain.gguf", ns=(1, 1))  # it changed since the library read it
    assert not models.can_estimate("plain", DEFAULT_OPTIONS)
    await asyncio.gather(*(models.study(name, DEFAULT_OPTIONS) for name in ("plain", "tuned", "plain")))
    assert len(threads) == 1
    assert threads[0] != threading.current_thread().name
    for name in ("plain", "tuned", "away", "made-up", "nobody"):
        assert models.can_estimate(name, DEFAULT_OPTIONS)
        await models.study(name, DEFAULT_OPTIONS)
    assert models.estimate("plain", DEFAULT_OPTIONS).ram > 0
    assert len(threads) == 1


async def test_what_is_wrong_with_a_file_is_told_by_the_estimate(library: Library) -> None:
    (library.base / "plain.gguf").write_bytes(b"GGUF")
    models = loader(library)
    await models.study("plain", DEFAULT_OPTIONS)
    assert models.can_estimate("plain", DEFAULT_OPTIONS)
    with pytest.raises(ModelLoadError, match="cut off or damaged"):
        models.estimate("plain", DEFAULT_OPTIONS)


@pytest.mark.real
async def test_a_conversion_comes_before_the_load(library: Library) -> None:
    registry, seen = SpyRegistry(), list[tuple[str, float]]()
    options = LoadOptions(quantization="q4_0")
    await loader(library, registry).load("plain", options, lambda *report: seen.append(report))
    assert registry.spec.path is not None
    assert registry.spec.path.name == "plain.q4_0.gguf"
    assert registry.spec.quantization is None
    phases = [phase for phase, _ in seen]
    assert phases == sorted(phases)  # converting, then loading
    assert seen[-1] == ("loading", pytest.approx(CONVERSION_SHARE + (1 - CONVERSION_SHARE) / 2))


async def test_memory_is_counted_where_it_is(library: Library) -> None:
    class OnGpu(FakeEngine):
        @property
        def info(self):  # type: ignore[no-untyped-def]
            return replace(super().info, memory=7, devices=("gpu",))

    assert loader(library).measured("m", OnGpu()) == Footprint(gpu=7)
    assert loader(library, facts=replace(FACTS, metal=True)).measured("m", OnGpu()) == Footprint(ram=7)
    assert loader(library).measured("m", FakeEngine()) is None
