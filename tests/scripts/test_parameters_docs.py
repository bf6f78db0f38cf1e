from __future__ import annotations

from scripts import parameters_docs


def test_the_table_says_what_schemas_and_engines_do() -> None:
    assert parameters_docs.is_current(), "run: make settings-docs"


def test_rows_follow_the_engines() -> None:
    rows = {row.split("`")[1]: row.split(" | ")[2:-1] for row in parameters_docs.table().splitlines()[2:]}
    labels = [each.label for each in parameters_docs.COLUMNS]
    assert dict(zip(labels, rows["mirostat_tau"], strict=True))["llama.cpp"] == "yes"
    assert set(rows["stop_token_ids"]) == {"yes"}
    assert set(rows["dry_base"]) == {"refused"}
    assert dict(zip(labels, rows["guided_json"], strict=True))["vLLM"] == "yes"
