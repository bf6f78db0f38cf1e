"""Lark grammars, written rule by rule, in which marks are tokens where the vocabulary has them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable

TokenOf = Callable[[str], int | None]
"""The one token that a text is in the vocabulary; None if there is none."""

_META = re.compile(r"[.^$*+?()\[\]{}|\\/#&~-]")


class Lark:
    """A grammar that grows. What its methods return stands in the body of a rule.

    Text never matches a special token, so a mark that is one must be named as a token.
    """

    def __init__(self, tokens: Iterable[str], token_of: TokenOf) -> None:
        """``tokens``: texts that may be single tokens."""
        known = {text: token for text in tokens if (token := token_of(text)) is not None}
        longest_first = sorted(known, key=len, reverse=True)
        self._ids = known
        self._split = re.compile("|".join(map(re.escape, longest_first))) if known else None
        self._names: dict[str, str] = {}
        self._lines: list[str] = []

    def source(self, start: str) -> str:
        """The whole, which begins with ``start``."""
        return "\n".join([f"start: {start}", *self._lines, ""])

    def rule(self, body: str, *, lazy: bool = False) -> str:
        """A rule: the same name for the same body."""
        return self._name(body, f"rule_{len(self._names)}", "[lazy]" if lazy else "")

    def reserve(self) -> tuple[str, Callable[[str], None]]:
        """The name of a rule that may refer to itself, and what takes its body."""
        name = f"rule_{len(self._names)}"
        self._names[name] = name
        return name, lambda body: self._lines.append(f"{name}: {body}")

    def regex(self, regex: str) -> str:
        """A text that matches ``regex``, in llguidance's syntax."""
        return self._name(f"/{regex}/", f"TEXT_{len(self._names)}")

    def without(self, mark: str) -> str:
        """Any text, but none that has ``mark`` in it."""
        return self._name(f"/(?s:.+)/ & ~/(?s:.*){escaped(mark)}(?s:.*)/", f"TEXT_{len(self._names)}")

    def is_plain(self, mark: str) -> bool:
        """Whether ``mark`` is text from its first character to its last."""
        return all(token is None for _, token in self._parts(mark))

    def text(self, text: str) -> str:
        """Just ``text``; nothing for an empty one."""
        return " ".join(_piece(*part) for part in self._parts(text))

    def until(self, mark: str) -> str:
        """Any text up to the first ``mark``, and the mark."""
        parts = self._parts(mark)
        lead = escaped(parts[0][0]) if parts[0][1] is None else ""
        if len(parts) == 1 and lead:
            return self.rule(f"/(?s:.*){lead}/", lazy=True)
        rest = " ".join(_piece(*part) for part in parts[1 if lead else 0 :])
        # A lazy rule would end at the first ``lead``, be it no part of the mark.
        head = self._name(f"/(?s:.*){lead}/ & ~/(?s:.*){escaped(mark)}(?s:.*)/", f"TEXT_{len(self._names)}")
        return f"{head} {rest}" if lead else f"{head}? {rest}"

    def _name(self, body: str, name: str, attributes: str = "") -> str:
        key = attributes + body
        if key not in self._names:
            self._names[key] = name
            self._lines.append(f"{name}{attributes}: {body}")
        return self._names[key]

    def _parts(self, text: str) -> list[tuple[str, int | None]]:
        """``text`` in pieces, each a token or none."""
        found: list[tuple[str, int | None]] = []
        at = 0
        for match in self._split.finditer(text) if self._split else ():
            if match.start() > at:
                found.append((text[at : match.start()], None))
            found.append((match[0], self._ids[match[0]]))
            at = match.end()
        return [*found, (text[at:], None)] if at < len(text) else found


def _piece(text: str, token: int | None) -> str:
    return literal(text) if token is None else f"<[{token}]>"


def literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def escaped(text: str) -> str:
    """``text`` within a regular expression."""
    return _META.sub(lambda match: "\\" + match[0], text).replace("\n", "\\n")


def choice(ways: Iterable[str]) -> str:
    """One of several bodies."""
    found = list(dict.fromkeys(ways))
    return found[0] if len(found) == 1 else f"({' | '.join(found)})"
