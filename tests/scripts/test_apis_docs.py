from __future__ import annotations

from dataclasses import replace

import pytest

from scripts import apis_docs


def test_the_table_says_what_is_served_and_by_which_engines() -> None:
    assert not apis_docs.untold(), "give it a row in scripts/apis_docs.py"
    assert apis_docs.is_current(), "run: make settings-docs"


def test_a_mark_follows_from_what_an_engine_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = apis_docs.COLUMNS
    lesser = replace(first, capabilities=first.capabilities - {"rerank"})
    monkeypatch.setattr(apis_docs, "COLUMNS", [lesser, *others])
    rows = dict(line.strip("| ").split(" | ", 1) for line in apis_docs.table().splitlines()[2:])
    assert rows["Anthropic Messages"].startswith("`/v1/messages`, `/v1/messages/count_tokens` | yes | yes")
    assert rows["reranking (Cohere, Jina, TEI, vLLM)"].startswith("`/v1/rerank`, `/v1/score` |  | ")
    monkeypatch.setattr(apis_docs, "ROWS", apis_docs.ROWS[1:])
    assert "/v1/chat/completions" in apis_docs.untold()
