from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engines.errors import ModelFileNotFound, ModelLoadError
from engines.load_spec import LoadSpec
from engines.mlx.folder import check_folder, check_settings


def safetensors(payload: int = 8) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(payload)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def test_a_whole_folder_passes(folder: Path) -> None:
    assert check_folder(folder) == (folder, {"model_type": "llama"})


def test_what_is_no_folder_is_refused(folder: Path) -> None:
    with pytest.raises(ModelFileNotFound, match="no folder"):
        check_folder(folder / "absent")
    with pytest.raises(ModelLoadError, match="llama_cpp"):
        check_folder(folder / "model.gguf")
    with pytest.raises(ModelLoadError, match="needs a model folder"):
        check_folder(None)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", b"{", "cannot be read"),
        ("config.json", b"{}", "no model_type"),
        ("tokenizer.json", None, "no tokenizer"),
        ("model.safetensors", None, r"no model\*.safetensors"),
        ("model.safetensors", safetensors(payload=4), "is broken"),
        ("model.safetensors", safetensors(payload=9), "is broken"),
        ("model.safetensors", b"<html>", "is a web page"),
        ("model.safetensors", b"", "is empty"),
        ("model.safetensors", safetensors()[:20], "cut off"),
        ("model.safetensors.index.json", b'{"weight_map": {"w": "model-2.safetensors"}}', "missing, model-2"),
        ("model.safetensors.index.json", b"[]", "cannot be read"),
    ],
)
def test_what_is_missing_or_broken_is_named(
    folder: Path, name: str, content: bytes | None, says: str
) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ModelLoadError, match=says):
        check_folder(folder)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"options": {"speed": 11}}, "'speed'"),
        ({"tensor_parallel": 2}, "one device"),
        ({"pipeline_parallel": 2}, "one device"),
        ({"dtype": "int3"}, "int3"),
    ],
)
def test_settings_that_it_lacks_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelLoadError, match=says):
        check_settings(LoadSpec("mlx", "m", **fields))


def test_dtypes_are_known_by_name() -> None:
    for dtype in (None, "auto", "float32"):
        check_settings(LoadSpec("mlx", "m", dtype=dtype))
