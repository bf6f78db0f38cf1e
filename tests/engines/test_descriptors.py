"""A new engine is a package and one line in the registry: nothing else knows the engines by name."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.schemas.models import LoadRequest
from app.settings import Settings
from engines import registry, selection
from engines.base import Engine, GenerationRequest, Sampling
from engines.descriptor import EngineDescriptor, Judgement, Load, Suitability
from engines.fake import FakeEngine
from engines.lifecycle.admission import ModelLimits
from engines.lifecycle.loader import LoadDefaults, ModelLoader
from engines.lifecycle.manager import ModelManager
from engines.load_spec import LoadSpec
from engines.machine.footprint import Footprint
from engines.machine.platform import Facts
from engines.models.library import Library
from engines.progress import Progress
from engines.registry import EngineRegistry
from support.models import bundled

ROOT = Path(__file__).parents[2]
GIB = 2**30
# Where an engine's name may be written: its own package, and the registry by way of the descriptors.
PACKAGES = {"llama_cpp": "llamacpp", "mlx": "mlx", "vllm": "vllm", "fake": "fake"}
ALLOWED = {
    ("mlx", "engines/models/formats.py"),  # the name of a format of models, which is also an engine's
    ("mlx", "engines/models/hf.py"),
}


class ToyPackage:
    """A toy engine's package: it makes text up, loads GGUF files, and remembers what it loaded."""

    def __init__(self, suitability: Suitability = Suitability.BEST) -> None:
        self.opened = 0
        self.loaded: list[LoadSpec] = []
        self.descriptor = EngineDescriptor(
            name="toy",
            label="Toy",
            install="toylib",
            formats=frozenset({"gguf"}),
            capabilities=frozenset({"chat", "completion"}),
            packages=lambda: {"toylib": "1.0"},
            judge=lambda facts: Judgement("toylib" in facts.packages, "toylib is installed", suitability),
            estimate=self._estimate,
            opener=self._opener,
        )

    def _estimate(self, spec: LoadSpec, machine: Facts, *, weights_loaded: bool) -> Footprint:
        return Footprint(ram=3 * 2**20)

    def _opener(self) -> Load:
        self.opened += 1

        async def load(spec: LoadSpec, progress: Progress | None) -> Engine:
            self.loaded.append(spec)
            return FakeEngine(spec.name)

        return load


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyPackage:
    toy = ToyPackage()
    monkeypatch.setitem(registry.ENGINES, "toy", toy.descriptor)
    return toy


async def test_a_fourth_engine_loads_models(toy: ToyPackage, tmp_path: Path) -> None:
    for name in ("one.gguf", "two.gguf"):
        (tmp_path / name).write_bytes(bundled().read_bytes())
    (tmp_path / "models.yaml").write_text("models: [{name: named, path: one.gguf, engine: toy}]")
    library = Library(tmp_path, tmp_path / "models.yaml")
    facts = selection.detect()
    assert facts.packages["toylib"] == "1.0"
    assert selection.explain(facts)[0].engine == "toy"
    loader = ModelLoader(library, EngineRegistry(), LoadDefaults(), facts, tmp_path / "converted")
    manager = ModelManager(loader, ModelLimits(2, Footprint(ram=GIB)))
    try:
        for name in ("named", "two"):  # by its name, and by "auto"
            status = await manager.load(name)
            assert status.memory == Footprint(ram=3 * 2**20)
        engine = manager.resident("two")
        assert isinstance(engine, FakeEngine)
        request = GenerationRequest(
            "r", await engine.render_chat([{"role": "user", "content": "hi"}]), Sampling(0)
        )
        assert [chunk.text async for chunk in engine.generate(request)]
    finally:
        await manager.stop()
    assert [(spec.engine, spec.name) for spec in toy.loaded] == [("toy", "named"), ("toy", "two")]
    assert toy.opened == 1


def test_a_fourth_engine_may_be_asked_for(toy: ToyPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENGINE", "toy")
    assert Settings().inference_engine == "toy"
    assert LoadRequest(model_name="m", engine="toy").engine == "toy"
    assert "toy" in LoadRequest.model_json_schema()["properties"]["engine"]["anyOf"][0]["enum"]


def test_engines_that_are_not_there_are_refused_with_those_that_are() -> None:
    with pytest.raises(ValidationError) as error:
        LoadRequest(model_name="m", engine="toy")
    [item] = error.value.errors()
    assert item["type"] == "literal_error"
    assert item["msg"] == "Input should be 'auto', 'vllm', 'mlx', 'llama_cpp' or 'fake'"


def test_descriptors_import_no_engine() -> None:
    code = (
        "import sys, engines.registry, engines.selection as s; s.explain(s.detect());"
        "bad = {'llama_cpp', 'vllm', 'mlx_lm', 'mlx', 'torch', 'transformers'} & set(sys.modules);"
        "bad |= {name for name in sys.modules if name.startswith('engines.') and name.endswith('.engine')"
        " and name not in ('engines.base.engine', 'engines.fake.engine')};"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def literals(path: Path) -> Iterator[str]:
    """Every text in the code that is not part of a longer one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_engine_is_named_outside_its_package() -> None:
    found = {
        (name, str(path.relative_to(ROOT)))
        for package in ("app", "balancer", "engines")
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in literals(path)
        if name in PACKAGES and not path.is_relative_to(ROOT / "engines" / PACKAGES[name])
    }
    assert registry.ENGINES.keys() == PACKAGES.keys()
    assert found <= ALLOWED
