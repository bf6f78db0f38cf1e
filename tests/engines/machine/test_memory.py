"""Amounts of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.machine import memory
from engines.machine.footprint import Footprint
from engines.machine.platform import Facts

GIB = 2**30
FACTS = Facts("linux", "x86_64", "3.11.7", 4, 8, 100 * GIB, 50 * GIB)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0.5", 50 * GIB),
        ("1", 100 * GIB),
        ("24GB", 24 * 10**9),
        ("24 gib", 24 * GIB),
        ("512MiB", 512 * 2**20),
        ("1.5G", 1_500_000_000),
        ("2000000", 2_000_000),
        ("1B", 1),
    ],
)
def test_shares_and_sizes(text: str, size: int) -> None:
    assert memory.parse_memory(text, 100 * GIB) == size


@pytest.mark.parametrize("text", ["", "lots", "-1GB", "0", "0GB", "5XB", "1e9"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="memory"):
        memory.parse_memory(text, 100 * GIB)


def test_the_budget_is_a_share_of_the_machine() -> None:
    assert memory.budget(FACTS) == Footprint(ram=80 * GIB)
    assert memory.budget(FACTS, max_memory="10GiB") == Footprint(ram=10 * GIB)


def test_gpus_are_counted_with_the_drivers_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '1000, 10'\necho '3000, 30'\n")
    tool.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(tool))
    monkeypatch.setattr(memory, "_from_nvml", lambda: 1 / 0)
    assert memory.gpu_memory_total() == 4000 * 2**20
    assert memory.gpu_memory_used() == 40 * 2**20
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert memory.gpu_memory_total() == 0
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert memory.gpu_memory_total() == 0
