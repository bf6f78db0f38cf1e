"""Sounds as mono samples, from WAV files.

MP3 and FLAC are refused: libmtmd's decoder takes as much memory as a file's header says it will need.
"""

from __future__ import annotations

import io
import wave

import numpy as np
import numpy.typing as npt

from engines.errors import RequestError

# Seconds of one sound: half an hour is more than any model hears.
LONGEST = 1800
_MOST_CHANNELS = 8

Samples = npt.NDArray[np.float32]


def length_of(data: bytes, sample_rate: int) -> int:
    """How many samples `samples_of` gives."""
    with _opened(data) as file:
        return _resampled_length(file.getnframes(), file.getframerate(), sample_rate)


def samples_of(data: bytes, sample_rate: int) -> Samples:
    """The sound as mono samples between -1 and 1, at ``sample_rate``. Raises `RequestError`."""
    with _opened(data) as file:
        raw = file.readframes(file.getnframes())
        width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        count = _resampled_length(file.getnframes(), rate, sample_rate)
    mono: npt.NDArray[np.float64] = _numbers(raw, width).reshape(-1, channels).mean(axis=1)
    if rate == sample_rate and len(mono) == count:
        return np.ascontiguousarray(mono, dtype=np.float32)
    places = np.arange(count) * (rate / sample_rate)
    return np.asarray(np.interp(places, np.arange(len(mono)), mono), dtype=np.float32)


def _opened(data: bytes) -> wave.Wave_read:
    if data[:4] != b"RIFF":
        raise RequestError("llama.cpp is given sounds as WAV only: convert MP3 and FLAC", param="messages")
    try:
        file = wave.Wave_read(io.BytesIO(data))
    except (wave.Error, EOFError, ValueError, ZeroDivisionError) as error:
        raise RequestError(f"a WAV file cannot be read: {error}. Send 16-bit PCM", param="messages") from None
    frame = file.getsampwidth() * file.getnchannels()
    if (
        file.getframerate() < 1
        or not 1 <= file.getnchannels() <= _MOST_CHANNELS
        or file.getsampwidth() not in (1, 2, 3, 4)
        or not 0 < file.getnframes() * frame <= len(data)
    ):
        raise RequestError("a WAV file is damaged, cut off, or has no sound in it", param="messages")
    if file.getnframes() > LONGEST * file.getframerate():
        raise RequestError(f"a sound is longer than {LONGEST} seconds: send a part of it", param="messages")
    return file


def _resampled_length(frames: int, rate: int, sample_rate: int) -> int:
    return max(1, frames * sample_rate // rate)


def _numbers(raw: bytes, width: int) -> npt.NDArray[np.float64]:
    """PCM samples as numbers between -1 and 1."""
    if width == 1:
        return (np.frombuffer(raw, dtype=np.uint8).astype(np.float64) - 128) / 128
    if width == 3:
        padded = np.zeros((len(raw) // 3, 4), dtype=np.uint8)
        padded[:, 1:] = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 3)
        raw, width = padded.tobytes(), 4
    return np.frombuffer(raw, dtype=f"<i{width}").astype(np.float64) / 2.0 ** (8 * width - 1)
