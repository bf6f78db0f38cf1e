"""What a lock file is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import lock

PACKAGES = {
    "a": ["b[fast]>=1", "Windows.Only; sys_platform == 'win32'", "old; python_version < '3.12'"],
    "b": ["c", "d-d; extra == 'fast'", "e; extra == 'slow'"],
    "c": ["a"],
}


def requires(name: str) -> list[str]:
    return PACKAGES.get(name, [])


def test_all_that_is_needed_on_the_target_and_nothing_else() -> None:
    assert lock.closure(["A>=1"], requires) == {"a", "b", "c", "d-d"}


def test_an_extra_counts_wherever_it_is_asked_for() -> None:
    assert lock.closure(["b", "b[slow]"], requires) == {"b", "c", "a", "d-d", "e"}
    assert lock.closure(["nothing"], requires) == {"nothing"}


def test_what_is_missing_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(lock, "FILE", tmp_path / "constraints.txt")
    monkeypatch.setattr(lock, "requirements", lambda: ["there-is-no-such-package"])
    assert lock.main() == 1
    assert "there-is-no-such-package is not installed" in capsys.readouterr().err
    assert not lock.FILE.exists()
