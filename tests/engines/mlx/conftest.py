"""A model small enough that a test of the real engine takes a fraction of a second."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from support.models import tiny_folder

# They compute with MLX, which is not everywhere.
collect_ignore = (
    []
    if find_spec("mlx")
    else [
        "test_engine.py",
        "test_masks.py",
        "test_model.py",
        "test_pooler.py",
        "test_prefixes.py",
        "test_sampling.py",
    ]
)


@pytest.fixture(scope="session")
def tiny() -> Path:
    return tiny_folder()
