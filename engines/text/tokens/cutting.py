"""Texts that are cut after so many tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class CutsTexts(Protocol):
    """Tokens of a text, perhaps of its beginning only, and back."""

    async def tokenize(self, text: str, *, add_special: bool, most: int | None = None) -> tuple[int, ...]: ...

    async def detokenize(self, token_ids: Sequence[int]) -> str: ...


async def beginning(text: str, most: int, tokenizer: CutsTexts) -> str:
    """The beginning of ``text`` that has ``most`` tokens; ``text`` itself if it has no more."""
    if len(text) * 4 <= most:  # it does not even have so many bytes
        return text
    tokens = await tokenizer.tokenize(text, add_special=False, most=most + 1)
    if len(tokens) <= most:
        return text
    # Half a character is none.
    return (await tokenizer.detokenize(tokens[:most])).removesuffix("\ufffd")
