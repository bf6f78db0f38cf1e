"""Pictures and sounds for tests, made in memory."""

from __future__ import annotations

import base64
import io
import struct
import wave
import zlib

from PIL import Image

from engines import media
from engines.base import Media


def picture(color: str = "red", size: tuple[int, int] = (8, 6), format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, format)
    return file.getvalue()


def image(color: str = "red", size: tuple[int, int] = (8, 6)) -> Media:
    return media.image(picture(color, size))


def sound(seconds: float = 0.1, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(b"\0\1" * int(rate * seconds))
    return file.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def bomb(width: int, height: int) -> bytes:
    """A small PNG file that says it is so large, and would be."""
    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(b"\0" * 2**16) for _ in range(64)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
