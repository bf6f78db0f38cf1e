"""Projectors beside models: found by their names, and read before llama.cpp sees them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines.errors import BadModelFile
from engines.models import projectors, store
from engines.models.facts import describe
from engines.models.library import Library
from support.gguf import DATA, FILE, header

CLIP = {
    "general.architecture": "clip",
    "clip.projector_type": "gemma3",
    "clip.has_vision_encoder": True,
    **{
        f"clip.vision.{key}": value
        for key, value in {
            "embedding_length": 32,
            "feed_forward_length": 64,
            "block_count": 1,
            "attention.head_count": 2,
            "image_size": 32,
            "patch_size": 4,
        }.items()
    },
}
GOOD = header(CLIP) + bytes(DATA)


def write(path: Path, content: bytes = GOOD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_beside_a_model(tmp_path: Path) -> None:
    model = write(tmp_path / "seer" / "seer-Q4_0.gguf", FILE)
    assert describe(model).senses == frozenset()
    # One that comes later is seen, here and where models are listed.
    projector = write(tmp_path / "seer" / "mmproj-F16.gguf")
    facts = describe(model)
    assert (facts.senses, facts.projector) == ({"vision"}, projector)
    assert projector in store.stamps(store.at(model))
    # With another model beside it, it might be either's.
    write(tmp_path / "seer" / "other.gguf", FILE)
    assert describe(model).projector is None
    named = write(tmp_path / "seer" / "mmproj-seer-Q8_0.gguf")
    assert describe(model).projector == named
    # A damaged one is for the load to tell.
    write(named, GOOD[:-1])
    assert (describe(model).senses, describe(model).projector) == (frozenset(), named)


def test_the_catalog_names_one_or_none(tmp_path: Path) -> None:
    write(tmp_path / "seer.gguf", FILE)
    write(tmp_path / "mmproj-seer.gguf")
    elsewhere = write(tmp_path / "parts" / "eyes.gguf")
    catalog = tmp_path / "models.yaml"

    def file_with(line: str) -> store.ModelFile:
        catalog.write_text(f"models:\n  - name: seer\n{line}")
        file = Library(tmp_path, catalog).find("seer").file
        assert file is not None
        return file

    assert file_with("").projector == tmp_path / "mmproj-seer.gguf"
    given = file_with("    projector: parts/eyes.gguf\n")
    assert (given.projector, given.senses) == (elsewhere, {"vision"})
    none = file_with("    projector: none\n")
    assert (none.projector, none.senses) == (None, frozenset())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FILE, "is no projector"),
        (GOOD[:-1], "is cut off"),
        (header(CLIP | {"clip.vision.patch_size": 0}) + bytes(DATA), "clip.vision.patch_size is 0"),
        (header(CLIP | {"clip.vision.attention.head_count": 3}) + bytes(DATA), "3 heads do not share 32"),
        (header(CLIP | {"clip.vision.block_count": "x"}) + bytes(DATA), "block_count is x"),
        (header(CLIP | {"clip.projector_type": "deepseek4v"}) + bytes(DATA), "deepseek4v are not supported"),
        (header({"general.architecture": "clip"}) + bytes(DATA), "has no encoder"),
    ],
)
def test_what_llama_cpp_would_die_of(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path / "mmproj.gguf", content)
    with pytest.raises(BadModelFile, match=message):
        projectors.read(path)
    os.unlink(path)
    with pytest.raises(BadModelFile, match="cannot be read"):
        projectors.read(path)
