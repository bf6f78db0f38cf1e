"""Forms of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Structure:
    """The form that the output must match: a JSON schema or grammar as text, a regular expression, one of
    several texts (``choices``), or just any JSON object (neither).

    A JSON schema that is not ``strict`` may have keywords that an engine cannot enforce. A grammar is GBNF if
    it has ``::=``, else Lark.
    """

    kind: Literal["json_object", "json_schema", "regex", "choice", "grammar"]
    value: str = ""
    choices: tuple[str, ...] = ()
    strict: bool = True
