"""Outputs of made-up vocabularies."""

from __future__ import annotations

from collections.abc import Callable

from engines.text.answers.assembler import TextAssembler
from engines.text.answers.output import TextOutput


def text_output(
    piece: Callable[[int], bytes] = lambda token: b"a", stops: tuple[str, ...] = ()
) -> TextOutput:
    """The output of a request for plain text."""
    return TextOutput(piece, TextAssembler(stops))
