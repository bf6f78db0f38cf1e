"""Reader of one answer: content, reasoning and tool calls, told apart as its tokens come."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from engines.text.answers.base import BaseReader
from engines.text.answers.channels import ChannelReader
from engines.text.answers.format import ChannelCall, Format, Reasoning
from engines.text.answers.functions import Functions
from engines.text.answers.marked import MarkedReader


def answer_reader(
    format: Format,
    tools: Iterable[Mapping[str, Any]] = (),
    *,
    prompt: str = "",
    controls: Collection[str] | None = None,
    hold: int = 0,
) -> BaseReader:
    """A reader of one answer in ``format`` to ``prompt``, whose end tells whether reasoning has begun.

    ``tools`` are functions in OpenAI's form; calls of others are content. ``controls`` are the control tokens
    of the vocabulary, by which a mark is told from text that looks like one; by default those that the
    family's vocabularies have. As many characters of a call's arguments as ``hold`` says are kept back: a
    call that turns out to be none until then, or is cut off, is not passed on at all.
    """
    functions = Functions(tools)
    if controls is None:
        controls = format.tokens if format.control else ()
    mine = frozenset(format.tokens).intersection(controls)
    if isinstance(format.call, ChannelCall):
        return ChannelReader(format, functions, prompt=prompt, controls=mine, hold=hold)
    return MarkedReader(
        format, functions, reasoning=opened_reasoning(format, prompt), controls=mine, hold=hold
    )


def opened_reasoning(format: Format, prompt: str) -> Reasoning | None:
    """The reasoning that the template has opened at the end of ``prompt``, and not closed."""
    end = prompt[-256:].rstrip()
    return next((each for each in format.reasonings if end.endswith(each.begin.rstrip())), None)
