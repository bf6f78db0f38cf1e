"""How much prompt to prefill in a step, so that running streams barely notice."""

from __future__ import annotations

SMOOTHING = 0.2


class PrefillPacer:
    """Turns measured step times into a token budget for the next step's prefill.

    While streams decode, prefill may lengthen a step by ``stretch`` times the usual decode step, but
    at least by ``floor`` seconds' worth; while none do, a step may take ``idle_step`` seconds, so that
    an abort or a new request is noticed soon. Times in seconds.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        smallest: int = 16,
        stretch: float = 1.2,
        floor: float = 0.02,
        idle_step: float = 0.08,
    ) -> None:
        self._batch_size = batch_size
        self._smallest = smallest
        self._stretch = stretch
        self._floor = floor
        self._idle_step = idle_step
        self._decode_step = 0.0
        self._token_cost = 0.0

    def budget(self, decoding: int) -> int:
        """Tokens to prefill beside ``decoding`` streams; at least `smallest`, within the batch."""
        room = max(self._smallest, self._batch_size - decoding)
        if not self._token_cost:
            return min(4 * self._smallest, room)
        seconds = max(self._floor, self._stretch * self._decode_step) if decoding else self._idle_step
        return max(self._smallest, min(room, int(seconds / self._token_cost)))

    def observe(self, *, decoded: int, prefilled: int, seconds: float) -> None:
        """Learn from a step that decoded and prefilled so many tokens."""
        if not prefilled:
            self._decode_step = _smooth(self._decode_step, seconds)
        elif prefilled >= self._smallest:
            cost = max(seconds - (self._decode_step if decoded else 0.0), 0.1 * seconds) / prefilled
            self._token_cost = _smooth(self._token_cost, cost)


def _smooth(old: float, new: float) -> float:
    return new if not old else old + SMOOTHING * (new - old)
