"""Write the README's table of APIs: their routes, and which engines answer them.

``python -m scripts.apis_docs``; a test says whether the table is up to date. The routes are those of the
routers, and the marks follow from what the engines' descriptors declare.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastapi.routing import APIRoute

from app import routers
from engines.descriptor import EngineDescriptor
from scripts.abilities_docs import COLUMNS, PATH
from scripts.settings_docs import with_table

# Routes about the server and its models, which belong to no engine.
MANAGING = frozenset({"Models", "Cluster", "System"})
_PARAMETER = re.compile(r"/\{.*")


@dataclass(frozen=True, slots=True)
class ServedApi:
    """A row: what it is called, how its routes' paths begin, and what an engine must be able to do."""

    title: str
    starts: tuple[str, ...]
    needs: frozenset[str]

    def paths(self) -> list[str]:
        """Its routes, without what follows a parameter."""
        found = [path for path in _paths() if path.startswith(self.starts)]
        return list(dict.fromkeys(_PARAMETER.sub("", path) for path in found))


def _api(title: str, *starts: str, needs: str) -> ServedApi:
    return ServedApi(title, starts, frozenset({needs}))


_TOKENS = ("/v1/tokenize", "/v1/detokenize", "/v1/apply-template")
ROWS = (
    _api("OpenAI chat completions", "/v1/chat/completions", needs="chat"),
    _api("OpenAI text completions", "/v1/completions", needs="completion"),
    _api("OpenAI Responses", "/v1/responses", needs="chat"),
    _api("Anthropic Messages", "/v1/messages", needs="chat"),
    _api("OpenAI embeddings", "/v1/embeddings", needs="embeddings"),
    _api("reranking (Cohere, Jina, TEI, vLLM)", "/v1/rerank", "/v1/score", needs="rerank"),
    _api("tokens (vLLM, llama-server)", *_TOKENS, needs="completion"),
    _api("filling in (llama-server)", "/v1/infill", needs="fim"),
    _api("OpenAI files and batches", "/v1/files", "/v1/batches", needs="completion"),
    _api("OpenAI audio", "/v1/audio/", needs="audio"),
    _api("Ollama (`OLLAMA_API=true`)", "/api/", needs="chat"),
)


def table() -> str:
    """A row for each API that is served."""
    rows = ["| API | routes | " + " | ".join(each.label for each in COLUMNS) + " |"]
    rows.append("|---" * (len(COLUMNS) + 2) + "|")
    for row in ROWS:
        if paths := row.paths():
            routes = ", ".join(f"`{path}`" for path in paths)
            cells = ["yes" if row.needs <= _able(each) else "" for each in COLUMNS]
            rows.append(f"| {' | '.join([row.title, routes, *cells])} |")
    return "\n".join(rows)


def untold() -> set[str]:
    """Routes to engines that no row tells of."""
    starts = tuple(start for row in ROWS for start in row.starts)
    return {path for path in _paths() if not path.startswith(starts)}


def is_current(path: Path = PATH) -> bool:
    """Whether the table says what the routers and the engines declare."""
    text = path.read_text(encoding="utf-8")
    return text == with_table(text, "apis", table())


def _able(engine: EngineDescriptor) -> frozenset[str]:
    return engine.capabilities | engine.request_fields


def _paths() -> Iterator[str]:
    for info in pkgutil.iter_modules(routers.__path__):
        module = importlib.import_module(f"{routers.__name__}.{info.name}")
        for route in getattr(getattr(module, "router", None), "routes", ()):
            if isinstance(route, APIRoute) and not MANAGING & set(route.tags):
                yield route.path


def main() -> int:
    PATH.write_text(with_table(PATH.read_text(encoding="utf-8"), "apis", table()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
