"""Reads YAML into plain values and remembers on which line each of them stands.

Only what JSON also has is understood: tags of other types, and anchors, which could blow a small file
up to any size, are mistakes. So is a key that comes twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from engines.models.catalog.errors import Problem

Path = tuple[str | int, ...]

# In C, where PyYAML has it: ten times as fast.
FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_CHARACTERS = 2**20
MAX_DEPTH = 32
_TEXT = "tag:yaml.org,2002:str"
# Dates are text here: nothing in a catalog is a date.
_AS_TEXT = (_TEXT, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_NULL, _BOOL = "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"


@dataclass(slots=True)
class Tree:
    """A document's value, the line of each part of it, and what is wrong with it."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def locate(self, path: Sequence[str | int]) -> Path:
        """The longest part of ``path`` that leads to something in the document.

        Steps that lead nowhere are left out: pydantic names branches of unions among them.
        """
        found: Path = ()
        for step in path:
            if (*found, step) in self.lines:
                found = (*found, step)
        return found

    def line(self, path: Sequence[str | int]) -> int:
        return self.lines.get(self.locate(path), 0)


def parse(text: str) -> Tree:
    """The tree of ``text``; whatever is wrong is in its ``problems``."""
    if len(text) > MAX_CHARACTERS:
        return Tree(problems=[Problem(0, f"it is longer than {MAX_CHARACTERS:,} characters")])
    try:
        return _read(text, FAST_LOADER)
    except (yaml.YAMLError, ValueError, OverflowError):
        pass  # once more, for the better words of PyYAML's own loader
    try:
        return _read(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        return Tree(problems=[Problem(_line(error.problem_mark or error.context_mark), _reason(error))])
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        return Tree(problems=[Problem(line, f"the character U+{_code(error):04X} is not allowed")])
    except (ValueError, OverflowError):
        return Tree(problems=[Problem(0, "this is not YAML: an escape in it stands for no character")])


def _read(text: str, loader: Any) -> Tree:
    problem = _refusal(text, loader)
    if problem is not None:
        return Tree(problems=[problem])
    node = yaml.compose(text, Loader=loader)
    return Tree() if node is None else _Builder().whole(node)


def _refusal(text: str, loader: Any) -> Problem | None:
    """What would make the document too large or too deep to build."""
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        if getattr(event, "anchor", None) is not None:
            return Problem(
                _line(event.start_mark), "anchors and aliases (& and *) are not allowed: use defaults"
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            return Problem(_line(event.start_mark), "it is nested too deeply")
    return None


def _line(mark: Any) -> int:
    return int(mark.line) + 1 if mark is not None else 0


def _reason(error: yaml.MarkedYAMLError) -> str:
    parts = (part for part in (error.context, error.problem) if part)
    return "this is not YAML: " + ", ".join(parts)


def _code(error: yaml.reader.ReaderError) -> int:
    return error.character if isinstance(error.character, int) else ord(error.character)


class _Builder:
    """Builds values from nodes, and the tree's lines and problems on the way."""

    def __init__(self) -> None:
        self.tree = Tree()
        self._scalars = yaml.constructor.SafeConstructor()

    def whole(self, node: yaml.Node) -> Tree:
        self.tree.value = self._build(node, ())
        return self.tree

    def _build(self, node: yaml.Node, path: Path) -> Any:
        self.tree.lines.setdefault(path, _line(node.start_mark))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag not in _COLLECTIONS:
            return self._complain(node, f"the tag {node.tag} is not allowed")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        return [self._build(child, (*path, index)) for index, child in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_node, "a key must be plain text")
                continue
            key = str(key_node.value)
            if key in built:
                first = self.tree.lines[(*path, key)]
                self._complain(key_node, f"the key {key!r} is already given on line {first}")
                continue
            self.tree.lines[(*path, key)] = _line(key_node.start_mark)
            built[key] = self._build(value_node, (*path, key))
        return built

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag in _AS_TEXT:
            return node.value
        try:
            if node.tag in _NUMBERS:
                return self._number(node)
            if node.tag == _NULL:
                return self._scalars.construct_yaml_null(node)
            if node.tag == _BOOL:
                return self._scalars.construct_yaml_bool(node)
        except (ValueError, KeyError, IndexError):
            return self._complain(node, f"{node.value[:40]!r} is not what its form says: put text in quotes")
        return self._complain(node, f"the tag {node.tag} is not allowed")

    def _number(self, node: yaml.ScalarNode) -> int | float | str:
        if ":" in node.value:  # YAML 1.1 reads 1:30 as 90; nobody means that
            return str(node.value)
        if node.tag.endswith("int"):
            return int(self._scalars.construct_yaml_int(node))
        return float(self._scalars.construct_yaml_float(node))

    def _complain(self, node: yaml.Node, text: str) -> None:
        self.tree.problems.append(Problem(_line(node.start_mark), text))
