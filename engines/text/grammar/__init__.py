"""Grammars: the forms that answers must have, as masks over a model's next tokens (llguidance).

A `Compiler` (one for each engine) makes a `Grammar` of a `Structure`; each sequence has a `TokenMask` of it,
which says before every draw what may be drawn. An engine supplies its `GrammarVocabulary`.
"""

from engines.text.grammar.choices import combine
from engines.text.grammar.compiler import Compiler
from engines.text.grammar.grammar import Grammar
from engines.text.grammar.library import is_installed
from engines.text.grammar.mask import TokenMask, start
from engines.text.grammar.schemas import checked
from engines.text.grammar.sources import json_in_lark
from engines.text.grammar.vocabulary import GrammarVocabulary, LazyTokenizer

__all__ = [
    "Compiler",
    "Grammar",
    "GrammarVocabulary",
    "LazyTokenizer",
    "TokenMask",
    "checked",
    "combine",
    "is_installed",
    "json_in_lark",
    "start",
]
