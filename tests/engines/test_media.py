"""Media: what they are by their own bytes, what is refused by the header alone, and pictures as RGB."""

from __future__ import annotations

import io
import time
import tracemalloc

import pytest
from PIL import Image, ImageFile

from engines import media
from engines.base import EngineInfo, Media
from engines.errors import RequestError, UnsupportedFeature
from support.pictures import bomb, picture, sound

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_images(format: str) -> None:
    data = picture("red", (20, 10), format)
    found = media.image(data)
    assert (found.kind, found.width, found.height, found.data) == ("image", 20, 10, data)
    decoded = media.decoded(found)
    assert (decoded.mode, decoded.size) == ("RGB", (20, 10))
    red, green, blue = decoded.getpixel((3, 3))  # type: ignore[misc]
    assert red > 240
    assert max(green, blue) < 20
    assert media.image(data).key == found.key != media.image(picture("blue", (20, 10), format)).key


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (SVG, "SVG images are not drawn"),
        (b"%PDF-1.7", "PDF files are not read"),
        (b"hello", "no image that can be read"),
        (b"", "no image that can be read"),
        (picture()[:20], "no image that can be read"),
        (picture(format="BMP"), "no image that can be read"),
        (picture(format="TIFF"), "no image that can be read"),
        (picture(size=(5001, 5000)), "5001 x 5000 pixels: at most 25 million"),
        (picture(size=(16385, 1)), "16,384 a side"),
        (b"\0" * (20 * 2**20 + 1), "at most 20,971,520"),
        (sound(), "no image that can be read"),
    ],
)
def test_what_is_no_image(data: bytes, told: str) -> None:
    with pytest.raises(RequestError, match=told) as caught:
        media.image(data, "messages.0.content.1")
    assert caught.value.param == "messages.0.content.1"


@pytest.mark.parametrize("size", [(30_000, 30_000), (2**31 - 1, 2**31 - 1), (16_384, 16_384)])
def test_bombs_are_refused_by_their_header(size: tuple[int, int]) -> None:
    data = bomb(*size)
    assert len(data) < 50_000
    tracemalloc.start()
    begun = time.perf_counter()
    with pytest.raises(RequestError, match=r"pixels|damaged"):
        media.image(data)
    assert time.perf_counter() - begun < 0.5
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_nothing_is_decoded_to_look_at_it(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of fewer pixels than Pillow itself refuses may still be a bomb."""
    data = picture(size=(64, 64), format=format)

    def load(self: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert media.image(data).width == 64


def test_pixels_that_are_cut_off() -> None:
    whole = Image.effect_noise((64, 64), 90)
    file = io.BytesIO()
    whole.save(file, "PNG")
    found = media.image(file.getvalue()[:1000])
    with pytest.raises(RequestError, match="damaged or cut off"):
        media.decoded(found)


def test_of_an_animation_the_first_frame_counts() -> None:
    file = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert media.decoded(media.image(file.getvalue())).getpixel((0, 0)) == (255, 0, 0)


def test_what_is_transparent_is_white() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(file, "PNG")
    assert media.decoded(media.image(file.getvalue())).getpixel((0, 0)) == (255, 255, 255)


def test_pictures_stand_upright() -> None:
    picture = Image.new("RGB", (8, 4), "red")
    exif = picture.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=exif)
    found = media.image(file.getvalue())
    assert media.decoded(found).size == (4, 8) == (found.width, found.height)


@pytest.mark.parametrize("data", [sound(), b"fLaC\0\0\0\x22", b"ID3\x04\0\0", b"\xff\xfb\x90\x64"])
def test_sounds(data: bytes) -> None:
    assert media.audio(data).kind == "audio"


@pytest.mark.parametrize("data", [picture(), b"OggS\0\2", b"RIFF\0\0\0\0AVI ", b"", b"\xff\xff\xff\xff"])
def test_what_is_no_sound(data: bytes) -> None:
    with pytest.raises(RequestError, match="no audio that can be read: send WAV, MP3 or FLAC"):
        media.audio(data, "here")


def test_a_model_without_the_sense() -> None:
    info = EngineInfo("e", "m", 8, 1, ("cpu",), frozenset({"chat", "vision"}))
    media.check_kinds([Media("image", b"", "")], info)
    with pytest.raises(UnsupportedFeature, match="model m takes no audio"):
        media.check_kinds([Media("audio", b"", "")], info)
