"""Choice of the format in which a model answers: told by the catalog, or seen in its chat template."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from engines.errors import CannotLoad
from engines.text.answers.format import Format, Reasoning
from engines.text.answers.formats import BY_NAME, FORMATS, GENERIC, REASONINGS


def choose_format(template: str, name: str | None = None) -> Format:
    """The format of a model with the chat template ``template``; ``name`` is the one that it is said to have.

    A model reasons as its template shows, if it does. Raises `CannotLoad` for a name that is not known.
    """
    if name is None:
        found = next((each for each in FORMATS if each.signs and _has(template, each.signs)), GENERIC)
    else:
        found = named_format(name)
    return replace(found, reasonings=_reasonings(template, found))


def named_format(name: str) -> Format:
    """Raises `CannotLoad` for a name that is not known, with those that are."""
    if name not in BY_NAME:
        known = ", ".join(sorted(BY_NAME))
        raise CannotLoad(
            f"there is no answer_format {name!r}: give one of {known}, or none, to let it be seen"
        )
    return BY_NAME[name]


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
