"""Bitmaps: media as a projector takes them, decoded, or in outline to find out how many tokens they take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.base import Media
from engines.llamacpp.media.sounds import length_of, samples_of
from engines.media import decoded


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An RGB picture; without ``pixels`` an outline."""

    width: int
    height: int
    pixels: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """So many mono samples; without ``samples`` an outline."""

    count: int
    samples: npt.NDArray[np.float32] | None = None


Bitmap = Picture | Audio


def outline_of(media: Media, sample_rate: int) -> Bitmap:
    """Quick: only the header is read. Raises `RequestError`."""
    if media.kind == "audio":
        return Audio(length_of(media.data, sample_rate))
    return Picture(media.width, media.height)


def bitmap_of(media: Media, sample_rate: int) -> Bitmap:
    """Decoded, which takes long. Raises `RequestError`."""
    if media.kind == "audio":
        samples = samples_of(media.data, sample_rate)
        return Audio(len(samples), samples)
    picture = decoded(media)
    return Picture(picture.width, picture.height, np.asarray(picture, dtype=np.uint8).copy())
