"""GBNF, the notation of llama.cpp's grammars, and Lark, that of llguidance."""

from __future__ import annotations

from engines.errors import RequestError

# What converts it is slow, and takes time with the square of the rules.
MAX_LENGTH = 128 * 1024
MAX_RULES = 1_000

LONGEST_REASON = 200


def is_gbnf(grammar: str) -> bool:
    """Whether ``grammar`` is GBNF: only there does a rule have its name in front of ``::=``."""
    return "::=" in grammar


def to_lark(grammar: str) -> str:
    """The same grammar in Lark. Raises `RequestError`."""
    from llguidance.gbnf_to_lark import gbnf_to_lark

    if len(grammar) > MAX_LENGTH or grammar.count("::=") > MAX_RULES:
        raise _refused(f"a GBNF grammar may have {MAX_LENGTH:,} characters and {MAX_RULES:,} rules at most")
    try:
        return gbnf_to_lark(grammar)
    except RecursionError:
        raise _refused("the grammar nests too deep") from None
    except Exception as error:  # the converter raises anything
        raise _refused(f"the GBNF grammar cannot be read: {str(error)[:LONGEST_REASON]}") from None


def _refused(why: str) -> RequestError:
    return RequestError(why, param="response_format")
