"""Signatures of thinking blocks: a mark that clients send back, which keeps thinking that is not told."""

from __future__ import annotations

import base64
import binascii

TOLD = "enginehouse"
"""The signature of thinking that its block tells. Clients refuse an empty one."""

_KEPT = f"{TOLD}:"


def signature_of(reasoning: str, *, is_told: bool) -> str:
    """Thinking that is left out of its block is in the signature: models are shown it again."""
    return TOLD if is_told else _KEPT + base64.b64encode(reasoning.encode("utf-8", "replace")).decode()


def reasoning_of(thinking: str, signature: str) -> str:
    """The reasoning in a block that came back; none in one of another server that left it out."""
    if thinking or not signature.startswith(_KEPT):
        return thinking
    try:
        return base64.b64decode(signature[len(_KEPT) :], validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
