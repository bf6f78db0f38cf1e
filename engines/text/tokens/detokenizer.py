"""Token bytes in, whole characters out."""

from __future__ import annotations

import codecs


class Utf8Stream:
    """Decodes UTF-8 that arrives in arbitrary pieces.

    Everything it returned, joined, equals ``all_bytes.decode("utf-8", "replace")``: a byte that can
    belong to no character becomes U+FFFD as soon as that is certain.
    """

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""

    @property
    def pending(self) -> bool:
        """Whether a character has begun; whatever follows, it will come out as exactly one."""
        return bool(self._pending)

    def feed(self, piece: bytes) -> str:
        """The characters that ``piece`` completes; at most three bytes stay behind."""
        if not self._pending and piece.isascii():
            return piece.decode("ascii")
        data = self._pending + piece
        text, used = codecs.utf_8_decode(data, "replace", False)
        self._pending = data[used:]
        return text

    def flush(self) -> str:
        """No more bytes will come: a character left unfinished becomes U+FFFD."""
        data, self._pending = self._pending, b""
        return data.decode("utf-8", "replace")
