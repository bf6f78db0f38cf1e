"""Choice of the format in which a model answers: told by the catalog, by the checkpoint, or seen in its chat
template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from engines.text.answers.format import Format, Reasoning
from engines.text.answers.formats import BY_NAME, FORMATS, GENERIC, REASONINGS

_ESCAPED = re.compile(r"\\(\W)")


def choose_format(
    template: str, name: str | None = None, response: Mapping[str, Any] | None = None
) -> Format:
    """The format of a model with the chat template ``template``; ``name`` is the one that it is said to have.

    ``response`` is its tokenizer's ``response_template`` (transformers), which says by what marks its answers
    are taken apart: before the chat template it shows the format, and whether the model reasons.
    """
    said = "\n".join(_marks(response))
    found = BY_NAME[name] if name is not None else _shown(said) or _shown(template) or GENERIC
    return replace(found, reasonings=_reasonings(said, found) or _reasonings(template, found))


def _shown(text: str) -> Format | None:
    return next((each for each in FORMATS if each.signs and _has(text, each.signs)), None)


def _marks(response: Any) -> Iterator[str]:
    """All texts in a response template, and patterns as what they match, roughly."""
    if isinstance(response, str):
        yield _ESCAPED.sub(r"\1", response)
    elif isinstance(response, Mapping):
        for each in response.values():
            yield from _marks(each)
    elif isinstance(response, list | tuple):
        for each in response:
            yield from _marks(each)


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
