"""A virtual environment answers for itself, not for the Python that runs the set-up."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts.setup.environment import Environment


class Here(Environment):
    """The environment that runs the tests."""

    @property
    def python(self) -> Path:
        return Path(sys.executable)


def test_has_asks_the_environment(tmp_path: Path) -> None:
    assert Here(tmp_path).has("pytest")
    assert not Here(tmp_path).has("no-such-distribution-at-all")
    assert not Environment(tmp_path / "absent").has("pytest")


def test_pip_runs_in_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = Here(tmp_path)
    environment.create()
    environment.pip("asking pip", "--version")
    assert capsys.readouterr().out.startswith("asking pip: done (")
    assert str(Path(sys.prefix)) in environment.log.read_text()
