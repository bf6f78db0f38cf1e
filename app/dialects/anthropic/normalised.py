"""Text that clients change with every request: made the same, or nothing in front of it could be cached."""

from __future__ import annotations

import re

# Claude Code's first system block names its version and a checksum of the request.
_BILLING = re.compile(r"x-anthropic-billing-header:[^\n]*\n*")


def normalised(text: str) -> str:
    """The text of a system block as the model is shown it."""
    match = _BILLING.match(text)
    return text[match.end() :] if match else text
