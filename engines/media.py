"""Checking and decoding of media: what it is, by its own bytes, and how large it would become.

Nothing here waits for a network. Decoding takes time with the number of pixels: call it in a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import ExifTags, Image, ImageOps

from engines.base import EngineInfo, Media, MediaKind
from engines.base.media import SENSES
from engines.errors import RequestError, UnsupportedFeature

MOST_MEDIA = 64
"""Images and sounds of one request."""

MOST_BYTES = 20 * 2**20
MOST_PIXELS = 25_000_000
# The longest side: what is wider costs a decoder more than its pixels tell.
LONGEST_SIDE = 16_384

# Pillow is given no other: many of its decoders are hardly ever looked after.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
# Orientations of pictures that lie on a side, as cameras store them.
_ON_A_SIDE = (5, 6, 7, 8)
_THREADS = ThreadPoolExecutor(2, "media-decode")
_NAMED = "PNG, JPEG, WebP or GIF"
_SOUNDS_NAMED = "WAV, MP3 or FLAC"


def image(data: bytes, param: str | None = None) -> Media:
    """The image in ``data``, checked by its header alone. Raises `RequestError` naming ``param``."""
    _check_size(data, param)
    width, height = _dimensions(data, param)
    if width * height > MOST_PIXELS or max(width, height) > LONGEST_SIDE:
        raise RequestError(
            f"the image has {width} x {height} pixels: at most {MOST_PIXELS // 1_000_000} million, and "
            f"{LONGEST_SIDE:,} a side, are read",
            param=param,
        )
    return Media("image", data, _key(data), width, height)


def audio(data: bytes, param: str | None = None) -> Media:
    """The sound in ``data``, told by its first bytes. Raises `RequestError` naming ``param``."""
    _check_size(data, param)
    if not _is_sound(data):
        raise RequestError(f"this is no audio that can be read: send {_SOUNDS_NAMED}", param=param)
    return Media("audio", data, _key(data))


READERS: dict[MediaKind, Callable[[bytes, str | None], Media]] = {"image": image, "audio": audio}


def decoded(media: Media) -> Image.Image:
    """The picture as RGB, upright, of an animation the first frame. Raises `RequestError` where its bytes
    are damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(media.data), formats=_FORMATS) as found:
                is_upright = _orientation(found) in (None, 1)
                found.load()
                return _on_white(found if is_upright else ImageOps.exif_transpose(found))
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise RequestError(f"an image is damaged or cut off: {error}") from None


async def decoded_all(media: Sequence[Media]) -> list[Image.Image]:
    """The pictures ``media``, one after the other, as each takes as many bytes as it has pixels three times;
    of all requests a few at once. Raises `RequestError`."""
    loop = asyncio.get_running_loop()
    return [await loop.run_in_executor(_THREADS, decoded, each) for each in media]


def check_kinds(media: Sequence[Media], info: EngineInfo) -> None:
    """Raise `UnsupportedFeature` if there is any of a kind that the model does not take."""
    for each in media:
        if SENSES[each.kind] not in info.capabilities:
            what = "images" if each.kind == "image" else "audio"
            raise UnsupportedFeature(f"model {info.model} takes no {what}", param="messages")


def _orientation(picture: Image.Image) -> int | None:
    """By what stands in front of its pixels: Pillow would decode a PNG file to look behind them."""
    return picture.getexif().get(ExifTags.Base.Orientation) if "exif" in picture.info else None


def _on_white(picture: Image.Image) -> Image.Image:
    """What is transparent is white, as pages show it; plain conversion would show what was hidden there."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        page = Image.new("RGB", layered.size, "white")
        page.paste(layered, mask=layered.getchannel("A"))
        return page
    return picture.convert("RGB")


def _check_size(data: bytes, param: str | None) -> None:
    if len(data) > MOST_BYTES:
        raise RequestError(
            f"{len(data):,} bytes are too many: at most {MOST_BYTES:,} are read of one file", param=param
        )


def _dimensions(data: bytes, param: str | None) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large ones, which are refused here by their size
            with Image.open(io.BytesIO(data), formats=_FORMATS) as found:
                width, height = found.size
                return (height, width) if _orientation(found) in _ON_A_SIDE else (width, height)
    except Image.DecompressionBombError:
        raise RequestError(
            f"the image has too many pixels: at most {MOST_PIXELS // 1_000_000} million are read", param=param
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, IndexError, OverflowError):
        pass
    raise RequestError(f"{_told(data)}: send {_NAMED}", param=param)


def _told(data: bytes) -> str:
    """What is wrong with bytes that are no image."""
    beginning = data[:1024].lstrip().lower()
    if beginning.startswith((b"<svg", b"<?xml")) or b"<svg" in beginning:
        return "SVG images are not drawn"
    if beginning.startswith(b"%pdf"):
        return "PDF files are not read"
    return "this is no image that can be read, or one that is damaged"


def _is_sound(data: bytes) -> bool:
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return True
    if data[:4] == b"fLaC" or data[:3] == b"ID3":
        return True
    # A frame of MPEG audio, layer III: eleven bits of synchronisation, a version and a layer.
    return len(data) > 3 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and data[1] & 0x06 == 0x02


def _key(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
