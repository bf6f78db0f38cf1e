"""Imports point one way: app → balancer → engines. Optional engines load only when asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {"engines": {"engines"}, "balancer": {"balancer", "engines"}, "app": {"app", "balancer", "engines"}}
# vLLM takes settings from the environment of the process that starts it, and of its child.
VLLM_LAUNCH = {"engines/vllm/child.py", "engines/vllm/launch.py", "engines/vllm/surroundings.py"}
HTTP = {"fastapi", "starlette", "uvicorn", "httpx", "pydantic", "pydantic_settings"}


def modules() -> list[tuple[Path, str]]:
    return [(path, package) for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(("path", "package"), modules(), ids=lambda value: str(value))
def test_direction(path: Path, package: str) -> None:
    assert imported(path) & set(ALLOWED) <= ALLOWED[package]
    if package != "app":
        # The catalog is a wire format of its own, and vLLM checks tools with pydantic.
        allowed = {"pydantic"} if {"catalog", "vllm"} & set(path.parts) else set()
        assert not imported(path) & (HTTP - allowed), "the wire belongs to app/"


def test_only_settings_read_the_environment() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for path, _ in modules()
        if any(word in path.read_text() for word in ("os.environ", "os.getenv", "getenv("))
    ]
    # The command line hands its options to the server through the environment.
    assert set(readers) <= {"app/settings.py", "app/cli/serve.py"} | VLLM_LAUNCH


def test_the_app_starts_without_optional_engines() -> None:
    code = (
        "import sys; import app.main, engines.registry; "
        "bad = {'llama_cpp', 'vllm', 'mlx_lm', 'torch'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
