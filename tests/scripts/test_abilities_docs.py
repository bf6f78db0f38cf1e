from __future__ import annotations

from app.inference.capabilities import FEATURES, HELP
from scripts import abilities_docs


def test_the_table_says_what_the_engines_declare() -> None:
    assert not abilities_docs.untold(), "give it a row in scripts/abilities_docs.py"
    assert abilities_docs.is_current(), "run: make settings-docs"


def test_who_asks_for_what_a_model_lacks_is_told_what_to_do() -> None:
    declared = {name for each in abilities_docs.COLUMNS for name in each.capabilities}
    asked_for = declared & FEATURES.keys()
    assert asked_for <= HELP.keys()
