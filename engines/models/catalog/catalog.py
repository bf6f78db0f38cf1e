"""The reader of ``models.yaml``, which tells all mistakes at once, with their lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from engines.models.catalog.content import Catalog, with_defaults
from engines.models.catalog.errors import CatalogError, Problem
from engines.models.catalog.schema import (
    AdapterEntry,
    CatalogEntry,
    CatalogFile,
    HubSource,
    ModelSettings,
    SamplingDefaults,
    UpstreamEntry,
)
from engines.models.catalog.tree import Path as TreePath
from engines.models.catalog.tree import Tree, parse

Part = TypeVar("Part", bound=BaseModel)


def load_catalog(path: Path) -> Catalog:
    """The catalog in ``path``; empty if there is no such file. Raises `CatalogError`."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return Catalog()
    except OSError as error:
        raise CatalogError(path.name, [Problem(0, f"cannot be read: {error.strerror or error}")]) from error
    except UnicodeDecodeError as error:
        raise CatalogError(path.name, [Problem(0, f"is not UTF-8 (byte {error.start})")]) from error
    return parse_catalog(text, path.name)


def parse_catalog(text: str, file: str) -> Catalog:
    """The catalog that ``text`` describes; ``file`` is what messages call it. Raises `CatalogError`."""
    parsed = parse(text)
    problems = [*parsed.problems, *_names_used_twice(parsed)]
    content = CatalogFile()
    if parsed.value is not None:
        try:
            content = CatalogFile.model_validate(parsed.value)
        except ValidationError as error:
            problems += _explain(error, parsed)
    if problems:
        raise CatalogError(file, problems, _catalog(_usable(parsed.value)))
    return _catalog(content)


def _catalog(content: CatalogFile) -> Catalog:
    entries = tuple(with_defaults(entry, content.defaults) for entry in content.models)
    return Catalog(entries, content.defaults, content.upstreams)


def _usable(value: Any) -> CatalogFile:
    """Those parts of the document that are right by themselves: one mistake is not to cost the others."""
    [defaults] = _right(ModelSettings, [_field(value, "defaults") or {}]) or [ModelSettings()]
    upstreams = _right(UpstreamEntry, _sequence(value, "upstreams"))
    models: list[CatalogEntry] = []
    taken: set[str] = set()
    for entry in _right(CatalogEntry, _sequence(value, "models")):
        names = {name.lower() for name in (*entry.names, *(adapter.name for adapter in entry.adapters))}
        if not names & taken:
            models.append(entry)
            taken |= names
    return CatalogFile(defaults=defaults, upstreams=tuple(upstreams), models=tuple(models))


def _right(kind: type[Part], values: Iterable[Any]) -> list[Part]:
    found = []
    for value in values:
        with suppress(ValidationError):
            found.append(kind.model_validate(value))
    return found


def _names_used_twice(parsed: Tree) -> Iterator[Problem]:
    """Requests name models, aliases and adapters in one field: each name must mean one thing."""
    first: dict[str, int] = {}
    for path, name in _names(parsed.value):
        line = parsed.line(path)
        if name.lower() in first:
            yield Problem(line, f"{_shown(path)}: the name {name!r} is already on line {first[name.lower()]}")
        first.setdefault(name.lower(), line)


def _names(value: Any) -> Iterator[tuple[TreePath, str]]:
    """Every name and where it stands, as far as the document has the right form."""
    for index, entry in enumerate(_sequence(value, "models")):
        at: TreePath = ("models", index)
        candidates = [((*at, "name"), _field(entry, "name"))]
        candidates += [((*at, "aliases", n), alias) for n, alias in enumerate(_sequence(entry, "aliases"))]
        candidates += [
            ((*at, "adapters", n, "name"), _field(adapter, "name"))
            for n, adapter in enumerate(_sequence(entry, "adapters"))
        ]
        yield from ((path, name) for path, name in candidates if isinstance(name, str))


def _field(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _sequence(value: Any, key: str) -> list[Any]:
    found = _field(value, key)
    return found if isinstance(found, list) else []


def _explain(error: ValidationError, parsed: Tree) -> Iterator[Problem]:
    for item in error.errors(include_url=False, include_context=False):
        location = parsed.locate(item["loc"])
        if item["type"] == "missing":
            location = (*location, item["loc"][-1])
        where = _shown(location)
        text = _message(item)
        yield Problem(parsed.line(location), f"{where}: {text}" if where else text)


def _message(item: Mapping[str, Any]) -> str:
    kind = item["type"]
    if kind == "missing":
        return "this field is required"
    if kind == "extra_forbidden":
        close = get_close_matches(str(item["loc"][-1]), _fields(item["loc"]), n=1)
        return "there is no such field" + (f"; did you mean {close[0]}?" if close else "")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "this must be a mapping (key: value)"
    if kind == "tuple_type":
        return "this must be a list (- value)"
    if kind == "string_type":
        return "this must be text; put it in quotes if it looks like something else"
    if kind == "string_pattern_mismatch":
        return "this is not of the right form" + _form(item["loc"])
    return str(item["msg"]).removeprefix("Value error, ").replace("Input should", "this should", 1)


def _form(location: tuple[int | str, ...]) -> str:
    if "upstreams" in location:
        return ", http://host:8000/v1"
    return ", org/name" if "hub" in location else ""


def _fields(location: tuple[int | str, ...]) -> list[str]:
    """The fields that would have been right at ``location``."""
    owner: type[BaseModel] = CatalogFile
    for step in location[:-1]:
        owner = _OWNERS.get(step, owner)
    return list(owner.model_fields)


_OWNERS: dict[int | str, type[BaseModel]] = {
    "defaults": ModelSettings,
    "models": CatalogEntry,
    "hub": HubSource,
    "sampling": SamplingDefaults,
    "adapters": AdapterEntry,
    "upstreams": UpstreamEntry,
}


def _shown(path: TreePath) -> str:
    """``models[1].keep_alive``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
