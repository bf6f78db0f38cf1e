"""The sampling that models ask for, and what holds where they ask for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.models import sampling, sampling_layers
from engines.models.catalog import SamplingDefaults
from engines.models.facts import describe
from support.gguf import DATA, LLAMA, header


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, {}),
        (
            {"temp": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.01, "penalty_repeat": 1.05},
            {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.05},
        ),
        ({"temp": 7.0, "top_k": 5, "mirostat": 2}, {"top_k": 5}),
    ],
)
def test_a_gguf_file_says_it_in_its_header(tmp_path: Path, said: dict[str, Any], found: object) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(header(LLAMA | {f"general.sampling.{k}": v for k, v in said.items()}) + bytes(DATA))
    assert sampling_layers.valid("m", describe(path).sampling) == found


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            '{"do_sample": false, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1, '
            '"eos_token_id": [1, 2], "max_new_tokens": 9, "min_p": null}',
            {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1},
        ),
        ('{"temperature": "hot", "top_p": 1.5, "top_k": 3.5, "min_p": 0.1}', {"min_p": 0.1}),
        ('{"temperature": 1}', {"temperature": 1}),
        ("{", {}),
        ("[]", {}),
        (None, {}),
    ],
)
def test_a_folder_says_it_in_a_file(tmp_path: Path, content: str | None, found: object) -> None:
    if content is not None:
        (tmp_path / "generation_config.json").write_text(content)
    assert sampling_layers.valid("m", sampling.of_folder(tmp_path)) == found


def test_the_catalog_counts_more_than_the_model_and_the_model_more_than_we() -> None:
    own, entry = {"temperature": 0.6, "top_k": 20}, SamplingDefaults(top_k=0, max_tokens=9)
    found = sampling_layers.effective("m", entry, own, {})
    wanted = {"temperature": 0.6, "top_k": 0, "top_p": 0.95, "min_p": 0.05, "max_tokens": 9}
    assert sampling_layers.said(found) == wanted
    speculative = sampling_layers.effective("m", entry, own, {"speculative_config": {"model": "x"}})
    assert "min_p" not in sampling_layers.said(speculative)
