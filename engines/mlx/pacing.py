"""Pace of prefill: the prompt tokens of a step, few enough that streams flow and aborts are noticed."""

from __future__ import annotations

SMOOTHING = 0.3
# Matrix kernels fill up from about here; smaller chunks cost as much.
LEAST_TOKENS = 64
MOST_TOKENS = 2048
# Beside running streams a chunk may take this many times a decode step; it always may take `FLOOR`.
STRETCH = 1.5
FLOOR_SECONDS = 0.05
IDLE_SECONDS = 1.0


class MlxPacer:
    """Turns measured times into the number of prompt tokens to prefill in one step."""

    def __init__(self) -> None:
        self._token_seconds = 0.0
        self._decode_seconds = 0.0

    def budget(self, decoding: int) -> int:
        """Tokens to prefill beside ``decoding`` streams, for all prompts together."""
        seconds = max(FLOOR_SECONDS, STRETCH * self._decode_seconds) if decoding else IDLE_SECONDS
        affordable = int(seconds / self._token_seconds) if self._token_seconds else LEAST_TOKENS
        return max(LEAST_TOKENS, min(MOST_TOKENS, affordable))

    def observe(self, *, prompt_tokens: int, prompt_seconds: float, decode_seconds: float) -> None:
        """Note the times of a step's parts; zeros say that it had no such part."""
        if prompt_tokens:
            self._token_seconds = _smooth(self._token_seconds, prompt_seconds / prompt_tokens)
        if decode_seconds:
            self._decode_seconds = _smooth(self._decode_seconds, decode_seconds)


def _smooth(old: float, new: float) -> float:
    return old + SMOOTHING * (new - old) if old else new
