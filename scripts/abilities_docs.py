"""Write the README's table of what each engine can do, from what the engines' descriptors declare.

``python -m scripts.abilities_docs``; a test says whether the table is up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engines.descriptor import EngineDescriptor
from engines.registry import ENGINES
from scripts.settings_docs import ROOT, with_table

PATH = ROOT / "README.md"
# The engine that every machine has comes first.
COLUMNS = [descriptor for descriptor in reversed(ENGINES.values()) if descriptor.formats]
ROWS = {
    "chat": "chat",
    "completion": "text completions",
    "tools": "tools",
    "structured": "structured output",
    "reasoning": "reasoning, told apart from the answer",
    "fim": "filling in the middle (`suffix`), with models that have tokens for it",
    "prompt_logprobs": "log probabilities of prompts (`echo` with `logprobs`, `prompt_logprobs`)",
    "embeddings": "embeddings, with models made for them",
    "rerank": "reranking, with models made for it",
    "vision": "images in chats, with models that see ([docs/images.md](docs/images.md))",
    "audio": "audio in chats, with models that hear",
    "adapters": "LoRA adapters",
    "sleep": "sleep in main memory (llama.cpp on CPUs, vLLM on GPUs)",
}
"""What each capability, or field of requests, is called there."""


def table() -> str:
    """A row for each ability that some engine has."""
    rows = ["| | " + " | ".join(each.label for each in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, text in ROWS.items():
        cells = ["yes" if name in _able(each) else "" for each in COLUMNS]
        if any(cells):
            rows.append(f"| {' | '.join([text, *cells])} |")
    return "\n".join(rows)


def untold() -> set[str]:
    """Capabilities that no row tells of."""
    return {name for each in COLUMNS for name in each.capabilities} - ROWS.keys()


def _able(engine: EngineDescriptor) -> frozenset[str]:
    return engine.capabilities | engine.request_fields


def is_current(path: Path = PATH) -> bool:
    """Whether the table says what the engines declare."""
    text = path.read_text(encoding="utf-8")
    return text == with_table(text, "abilities", table())


def main() -> int:
    PATH.write_text(with_table(PATH.read_text(encoding="utf-8"), "abilities", table()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
