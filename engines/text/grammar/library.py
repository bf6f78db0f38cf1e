"""llguidance's limits for grammars that anybody may send, and whether it is there at all."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from engines.machine.platform import is_importable

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

# An object of 1,000 optional properties needs some 4,000 items in a row.
MAX_ITEMS_IN_ROW = 8_000
# Each takes one to two kilobytes, in every sequence.
MAX_LEXER_STATES = 50_000
MAX_GRAMMAR_SIZE = 200_000


@cache
def is_installed() -> bool:
    """Whether structures can be compiled here."""
    return is_importable("llguidance")


@cache
def _limits() -> LLParserLimits:
    from llguidance import LLParserLimits

    return LLParserLimits(
        max_items_in_row=MAX_ITEMS_IN_ROW,
        max_lexer_states=MAX_LEXER_STATES,
        max_grammar_size=MAX_GRAMMAR_SIZE,
        verbose_errors=False,  # they would quote the grammar
    )


def matcher(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    """A matcher at the beginning of ``grammar``, which is llguidance's own text. It never raises: see its
    ``is_error``."""
    from llguidance import LLMatcher

    return LLMatcher(tokenizer, grammar, log_level=0, limits=_limits())
