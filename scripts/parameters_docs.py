"""Write the table of `docs/parameters.md` from the schemas and the engines' descriptors.

``python -m scripts.parameters_docs``; a test says whether the table is up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from app.dialects.openai.chat.schema import ChatCompletionRequest
from app.dialects.openai.chat.template import TemplateFields
from app.dialects.openai.completions.schema import CompletionRequest
from app.dialects.openai.peers import STRUCTURES, CountsWith, PeerFields, asked_capabilities
from app.dialects.openai.sampling import StreamOptions
from app.inference.capabilities import FEATURES
from engines.descriptor import EngineDescriptor
from engines.registry import ENGINES
from scripts.settings_docs import ROOT, with_table

PATH = ROOT / "docs" / "parameters.md"
COLUMNS = [descriptor for descriptor in ENGINES.values() if descriptor.formats]
_STRUCTURED = {*STRUCTURES, "structured_outputs"}
OTHERS: tuple[tuple[type[BaseModel], str], ...] = (
    (ChatCompletionRequest, "top_k"),
    (ChatCompletionRequest, "min_p"),
    (ChatCompletionRequest, "repetition_penalty"),
    (ChatCompletionRequest, "min_tokens"),
    (ChatCompletionRequest, "ignore_eos"),
    (CompletionRequest, "add_special_tokens"),
    (StreamOptions, "continuous_usage_stats"),
    (ChatCompletionRequest, "structured_outputs"),
)
"""Fields of other servers that stand in the schemas elsewhere."""


def table() -> str:
    """A row for each field: where it is, what each engine does with it, and what it is."""
    rows = ["| field | of | " + " | ".join(each.label for each in COLUMNS) + " | |"]
    rows.append("|---" * (len(COLUMNS) + 3) + "|")
    return "\n".join([*rows, *_rows()])


def _rows() -> Iterator[str]:
    for schema, name in OTHERS:
        yield _row(schema, name)
    for schema in (TemplateFields, PeerFields):
        for name in (name for name in schema.__annotations__ if name in schema.model_fields):
            yield _row(schema, name)


def _row(schema: type[BaseModel], name: str) -> str:
    field = schema.model_fields[name]
    master = next((each.name for each in field.metadata if isinstance(each, CountsWith)), None)
    asks = asked_capabilities(schema).get(master or name)
    needed = "structured" if name in _STRUCTURED else (asks.name or master or name) if asks else None
    where = {TemplateFields: "chat", CompletionRequest: "text", StreamOptions: "stream_options"}
    meaning = f"Counts with `{master}`." if master else field.description or _feature(needed or name)
    cells = [_cell(field, needed, each) for each in COLUMNS]
    return f"| {' | '.join([f'`{name}`', where.get(schema, 'both'), *cells, meaning])} |"


def _cell(field: FieldInfo, needed: str | None, engine: EngineDescriptor) -> str:
    if needed is not None:
        return "yes" if needed in engine.capabilities | engine.request_fields else "refused"
    return "unused" if "not used" in (field.description or "") else "yes"


def _feature(capability: str) -> str:
    feature = FEATURES[capability]
    return f"{feature[0].upper()}{feature[1:]}."


def main() -> int:
    PATH.write_text(with_table(PATH.read_text(encoding="utf-8"), "parameters", table()), encoding="utf-8")
    return 0


def is_current(path: Path = PATH) -> bool:
    """Whether the table says what the schemas and engines do."""
    text = path.read_text(encoding="utf-8")
    return text == with_table(text, "parameters", table())


if __name__ == "__main__":
    sys.exit(main())
