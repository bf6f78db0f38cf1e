"""Grammars of whole answers: reasoning, calls of functions and content, in the form that a model writes them.

`answer` writes one from a declared format; `calls` knows the shapes of calls, `values` other notations than
JSON, `lark` the language.
"""
