"""GBNF, the notation of llama.cpp's grammars, and Lark, that of llguidance."""

from __future__ import annotations

import re

from engines.errors import RequestError

# What converts it is slow, and takes time with the square of the rules.
MAX_LENGTH = 128 * 1024
MAX_RULES = 1_000

LONGEST_REASON = 200
_RULE = re.compile(r"^[ \t]*[A-Za-z_][\w-]*\s*::=", re.MULTILINE)

_ESCAPE = re.compile(r"\\(?:\\|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")


def is_gbnf(grammar: str) -> bool:
    """Whether ``grammar`` is GBNF: only there does a rule have its name in front of ``::=``."""
    return _RULE.search(grammar) is not None


def to_lark(grammar: str) -> str:
    """The same grammar in Lark. Raises `RequestError`."""
    from llguidance.gbnf_to_lark import gbnf_to_lark

    if len(grammar) > MAX_LENGTH or grammar.count("::=") > MAX_RULES:
        raise _refused(f"a GBNF grammar may have {MAX_LENGTH:,} characters and {MAX_RULES:,} rules at most")
    try:
        return gbnf_to_lark(_ESCAPE.sub(_plain, grammar))
    except RecursionError:
        raise _refused("the grammar nests too deep") from None
    except Exception as error:  # the converter raises anything
        raise _refused(f"the GBNF grammar cannot be read: {str(error)[:LONGEST_REASON]}") from None


def _plain(escape: re.Match[str]) -> str:
    """A character instead of its number, of which the converter loses the zeros."""
    digits = escape[1] or escape[2]
    if digits is None:  # a backslash
        return escape[0]
    code = int(digits, 16)
    return chr(code) if code >= 0x80 else f"\\x{code:02x}"


def _refused(why: str) -> RequestError:
    return RequestError(why, param="response_format")
