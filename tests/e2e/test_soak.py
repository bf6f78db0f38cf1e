"""Loading and unloading leaves nothing behind: `make soak`, in short."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import soak
from support.models import smollm2, tiny_folder


@pytest.mark.parametrize("engine", ["llama_cpp", "mlx"])
def test_ten_cycles_leave_nothing_behind(
    engine: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = ["--model", str(smollm2()), "--folder", str(tiny_folder())]
    status = soak.main(["--engines", engine, "--cycles", "10", "--out", str(tmp_path), *files])
    assert status == 0, capfd.readouterr().out
