"""The shape of the source: one class one name, short files, short routes."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

from support.source import PACKAGES, modules

MOST_LINES = 300
REASON = "Long because"
# A reason stands at the top of the file, where a reader meets it.
TOP_LINES = 15
MOST_ROUTE_LINES = 40
ROUTES = {"get", "post", "put", "patch", "delete", "head", "options", "api_route"}


def test_a_class_name_stands_for_one_class() -> None:
    """Whoever reads "Worker" knows which, without a look at the imports."""
    homes: dict[str, set[str]] = defaultdict(set)
    for module in modules(*PACKAGES, "benchmarks").values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(module.name)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_long_files_say_why() -> None:
    lengths = {
        module.file: module.text.count("\n")
        for module in modules(*PACKAGES).values()
        if REASON not in "\n".join(module.text.splitlines()[:TOP_LINES])
    }
    long = {file: lines for file, lines in lengths.items() if lines > MOST_LINES}
    assert long == {}


def test_routes_are_short() -> None:
    """A route parses, hands on and answers; what takes longer belongs to what it calls."""
    found = dict(_routes())
    assert len(found) > 10
    assert {name: lines for name, lines in found.items() if lines > MOST_ROUTE_LINES} == {}


def _routes() -> Iterator[tuple[str, int]]:
    """Each route, as ``module:function``, and its lines without the decorators."""
    for module in modules("app").values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_route(node):
                assert node.end_lineno is not None
                yield f"{module.name}:{node.name}", node.end_lineno - node.lineno + 1


def _is_route(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    calls = [each.func for each in node.decorator_list if isinstance(each, ast.Call)]
    return any(isinstance(func, ast.Attribute) and func.attr in ROUTES for func in calls)
