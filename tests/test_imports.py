"""Imports point one way: app → balancer → engines, in no circle. Optional engines load when asked for."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from support.source import PACKAGES, ROOT, Module, cycles, graph, imports, modules

ALLOWED = {"engines": {"engines"}, "balancer": {"balancer", "engines"}, "app": {"app", "balancer", "engines"}}
# Everything of this project that can be imported; what measures and tests it, it does not know.
PROJECT = {*PACKAGES, "benchmarks", "scripts", "support", "tests"}
# vLLM takes settings from the environment of the process that starts it, and of its child.
VLLM_LAUNCH = {"engines/vllm/child.py", "engines/vllm/launch.py", "engines/vllm/surroundings.py"}
WIRE = {"fastapi", "starlette", "uvicorn", "httpx", "pydantic", "pydantic_settings"}


@pytest.mark.parametrize("module", modules(*PACKAGES).values(), ids=lambda module: module.file)
def test_direction(module: Module) -> None:
    imported = {name.partition(".")[0] for name in imports(module.tree)}
    assert imported & PROJECT <= ALLOWED[module.package]
    if module.package != "app":
        # The catalog is a wire format of its own, and vLLM checks tools with pydantic.
        allowed = {"pydantic"} if {"catalog", "vllm"} & set(module.name.split(".")) else set()
        assert not imported & (WIRE - allowed), "the wire belongs to app/"


def test_no_module_imports_itself_in_a_circle() -> None:
    """Nor only for type checkers, nor inside a function: two such modules are one."""
    found = cycles(graph(modules(*PACKAGES, "benchmarks", "scripts")))
    assert sorted(map(sorted, found)) == []


def test_circles_are_found() -> None:
    edges = {"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": {"e"}, "e": set(), "f": {"a", "g"}, "g": {"f"}}
    assert sorted(map(sorted, cycles(edges))) == [["b", "c"], ["f", "g"]]


def test_only_settings_read_the_environment() -> None:
    readers = {
        module.file
        for module in modules(*PACKAGES).values()
        if any(word in module.text for word in ("os.environ", "os.getenv", "getenv("))
    }
    # The command line hands its options to the server through the environment; children have a part of it.
    ours = {"app/settings.py", "app/cli/serve.py", "engines/machine/child_environment.py"}
    assert readers <= ours | VLLM_LAUNCH


def test_children_are_started_with_an_environment() -> None:
    """Whoever starts a process says what it is to have of ours: by default, it would have our secrets."""
    starts = {"create_subprocess_exec", "create_subprocess_shell", "subprocess_exec", "subprocess_shell"}
    starts |= {"Popen", "check_output", "check_call"}
    calls = [
        (module.file, node)
        for module in modules(*PACKAGES).values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in starts or ast.unparse(node.func) == "subprocess.run"
    ]
    assert len(calls) >= 4
    assert [file for file, call in calls if "env" not in {each.arg for each in call.keywords}] == []


def test_the_app_starts_without_optional_engines() -> None:
    code = (
        "import sys; import app.main, engines.registry; "
        "bad = {'llama_cpp', 'vllm', 'mlx_lm', 'torch'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
