"""The project's own source as data: its modules and what each imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("app", "balancer", "engines")


@dataclass(frozen=True, slots=True)
class Module:
    """A module by its dotted name; ``file`` is relative to the project."""

    name: str
    file: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


@cache
def modules(*packages: str) -> dict[str, Module]:
    """All modules of ``packages``, by name."""
    found = (_read(path) for package in packages for path in sorted((ROOT / package).rglob("*.py")))
    return {module.name: module for module in found}


def _read(path: Path) -> Module:
    file = path.relative_to(ROOT)
    name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
    text = path.read_text(encoding="utf-8")
    return Module(name, file.as_posix(), text, ast.parse(text))


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that are imported anywhere: in functions and for type checkers, too.

    Of ``from a import b`` both ``a`` and ``a.b``: which of them is a module, the source does not say.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph(known: Mapping[str, Module]) -> dict[str, set[str]]:
    """Which of the ``known`` modules each imports. Packages count for what is their own."""
    edges: dict[str, set[str]] = {}
    for name, module in known.items():
        found: set[str] = set()
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                found.update(full & known.keys() if full <= known.keys() else {node.module, *full})
        edges[name] = (found & known.keys()) - {name}
    return edges


def cycles(edges: Mapping[str, set[str]]) -> list[set[str]]:
    """Groups of modules that import each other in a circle (strongly connected ones, after Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in edges[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = set(stack[stack.index(name) :])
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(group)

    for name in edges:
        if name not in index:
            visit(name)
    return found
