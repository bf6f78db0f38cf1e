"""Media: the images and sounds in a chat, as bytes that were checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MediaKind = Literal["image", "audio"]

SENSES: Mapping[MediaKind, str] = {"image": "vision", "audio": "audio"}
"""The capability that each kind takes."""


@dataclass(frozen=True, slots=True)
class Media:
    """An image or a sound, encoded: PNG, JPEG, WebP or GIF; WAV, MP3 or FLAC.

    ``key`` is the SHA-256 of ``data`` in hexadecimal digits: what is equal has one key. ``width`` and
    ``height`` of an image are in pixels, as its header says; it was not decoded yet.
    """

    kind: MediaKind
    data: bytes
    key: str
    width: int = 0
    height: int = 0
