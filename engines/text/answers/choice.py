"""Choice of the format in which a model answers: told by the catalog, or seen in its chat template."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from engines.text.answers.format import Format, Reasoning
from engines.text.answers.formats import BY_NAME, FORMATS, GENERIC, REASONINGS


def choose_format(template: str, name: str | None = None) -> Format:
    """The format of a model with the chat template ``template``; ``name`` is the one that it is said to have.

    A model reasons as its template shows, if it does.
    """
    if name is not None:
        found = BY_NAME[name]
    else:
        found = next((each for each in FORMATS if each.signs and _has(template, each.signs)), GENERIC)
    return replace(found, reasonings=_reasonings(template, found))


def _reasonings(template: str, found: Format) -> tuple[Reasoning, ...]:
    own = tuple(each for each in found.reasonings if _shows(template, each, found))
    return own or tuple(each for each in REASONINGS if _shows(template, each, found))


def _shows(template: str, reasoning: Reasoning, found: Format) -> bool:
    # Templates that begin it write the first mark, those that take it out of a history look for the last.
    return _has(template, _parts(reasoning.begin, found)) or _has(template, _parts(reasoning.end, found))


def _parts(mark: str, found: Format) -> list[str]:
    """What must be in a template that writes ``mark``, which it may put together from single tokens."""
    tokens = "|".join(map(re.escape, found.tokens)) or "$"
    return [part for part in re.split(f"({tokens})", mark.strip()) if part]


def _has(template: str, signs: Iterable[str]) -> bool:
    return all(sign in template for sign in signs)
