"""Reasoning that goes through a client which keeps only what it takes for encrypted.

Nothing is secret in it: the client has the text anyway, but some send no other part of it back.
"""

from __future__ import annotations

import base64
import binascii

from app.dialects.openai.responses.items import ReasoningItem

_MARK = "plain:"


def sealed(text: str) -> str:
    """The `encrypted_content` of an item with this reasoning."""
    return _MARK + base64.b64encode(text.encode("utf-8", "replace")).decode()


def text_of(item: ReasoningItem) -> str:
    """The reasoning in an item that a client sends back; empty if it is only in what cannot be read."""
    if item.content:
        return "".join(part.text or "" for part in item.content)
    found = _unsealed(item.encrypted_content or "")
    if found or not isinstance(item.summary, list):
        return found
    texts = (part.get("text") for part in item.summary if isinstance(part, dict))
    return "\n\n".join(text for text in texts if isinstance(text, str))


def _unsealed(content: str) -> str:
    if not content.startswith(_MARK):
        return ""
    try:
        return base64.b64decode(content.removeprefix(_MARK), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
