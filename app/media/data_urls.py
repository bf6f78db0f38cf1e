"""Data URLs (RFC 2397): the bytes in them."""

from __future__ import annotations

import binascii
from urllib.parse import unquote_to_bytes

from engines.errors import RequestError
from engines.media import MOST_BYTES

_URL_SAFE = str.maketrans("-_", "+/")


def is_data_url(source: str) -> bool:
    return source[:5].lower() == "data:"


def read(url: str, param: str) -> bytes:
    """The bytes of the data URL ``url``, whatever type it says they have. Raises `RequestError`.

    Line breaks in base64, its URL-safe form, and one without padding are read too.
    """
    header, comma, data = url[5:].partition(",")
    if not comma:
        raise RequestError("the data URL has no comma, behind which its data would be", param=param)
    if not header.rstrip().lower().endswith(";base64"):
        return _within(unquote_to_bytes(data), param)
    if "%" in data:
        data = unquote_to_bytes(data).decode("ascii", "replace")
    return _within(base64(data, param), param)


def base64(data: str, param: str) -> bytes:
    """The bytes that ``data`` stands for. Raises `RequestError`."""
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except (binascii.Error, ValueError):
        pass  # it may still be one of the forms that are less strict
    text = "".join(data.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"this is no base64: {str(error).lower()}", param=param) from None


def _within(data: bytes, param: str) -> bytes:
    if not data:
        raise RequestError("the data URL is empty", param=param)
    if len(data) > MOST_BYTES:
        raise RequestError(f"one file may have {MOST_BYTES:,} bytes at most", param=param)
    return data
