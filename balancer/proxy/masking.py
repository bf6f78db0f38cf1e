"""Masks: an upstream's key is taken out of what the upstream says, before a client or a log gets it."""

from __future__ import annotations

# A key that is shorter stays in answers: it may be a word (such as EMPTY), and they are full of words.
LEAST_IN_ANSWERS = 16
# In errors a word less does no harm.
LEAST_IN_ERRORS = 4

_MASK = b"*"


def masked(text: str, key: str | None) -> str:
    """``text`` with asterisks in place of ``key``."""
    return text.replace(key, "*" * len(key)) if key is not None and len(key) >= LEAST_IN_ERRORS else text


def mask_for(status: int, key: str | None) -> Mask | None:
    """The mask for an answer of this ``status``; None if there is nothing to hide."""
    least = LEAST_IN_ERRORS if status >= 400 else LEAST_IN_ANSWERS
    return Mask(key.encode()) if key is not None and len(key) >= least else None


class Mask:
    """Replaces a key in a body that comes in pieces, by as many asterisks: announced lengths stay true."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._asterisks = _MASK * len(key)
        self._ends = frozenset(key[:-1])
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The part of the body up to the end of ``data``, but for what may be the begin of the key."""
        if self._held:
            data = self._held + data
        if self._key in data:
            data = data.replace(self._key, self._asterisks)
        kept = self._begun(data) if data and data[-1] in self._ends else 0
        self._held = data[len(data) - kept :] if kept else b""
        return data[: len(data) - kept] if kept else data

    def rest(self) -> bytes:
        """What was held back, once nothing follows."""
        held, self._held = self._held, b""
        return held

    def _begun(self, data: bytes) -> int:
        """How many bytes at the end of ``data`` the key begins with."""
        most = min(len(data), len(self._key) - 1)
        return next((count for count in range(most, 0, -1) if data.endswith(self._key[:count])), 0)
