"""Files in the input of a response: those that are text, in the request itself."""

from __future__ import annotations

import base64
import binascii

from app.dialects.openai.responses.items import ItemPart

_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/yaml")


def file_text(part: ItemPart) -> str | None:
    """The text of a file with its name in front, or None if it is none, or not here."""
    url = part.file_data
    if not isinstance(url, str) or not url.startswith("data:"):
        return None
    head, _, data = url.removeprefix("data:").partition(",")
    if not head.lower().startswith(_TEXT_TYPES) or not head.lower().endswith(";base64"):
        return None
    try:
        text = base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    name = part.filename if isinstance(part.filename, str) else "file"
    return f"{name}:\n\n{text}"
