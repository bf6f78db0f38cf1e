"""Room on the disk for a converted model."""

from __future__ import annotations

import shutil
from pathlib import Path

from engines.machine.job_process import JobFailed

MARGIN = 128 * 2**20  # bytes of the disk that are left free


def check_space(part: Path, needed: int) -> None:
    """Raise `JobFailed` unless ``needed`` bytes fit on the disk that ``part`` is written to."""
    free = shutil.disk_usage(part.parent).free
    if needed + MARGIN > free:
        raise JobFailed(
            f"the converted model needs {(needed + MARGIN) / 1e9:.2f} GB but the disk of {part.parent} has "
            f"{free / 1e9:.2f} GB free: remove something, or drop `quantization`"
        )
