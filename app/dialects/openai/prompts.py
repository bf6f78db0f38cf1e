"""Prompts of requests: texts or token ids, one or several."""

from __future__ import annotations

Prompts = tuple[str | tuple[int, ...], ...]


def text_or_token_ids(prompt: str | list[str] | list[int] | list[list[int]]) -> Prompts:
    """The prompts of a request, each a text or its token ids."""
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt[0], int):
        return (tuple(prompt),)
    return tuple(item if isinstance(item, str) else tuple(item) for item in prompt)
