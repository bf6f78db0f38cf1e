"""Pace of prefill: the prompt tokens of a step, few enough that running streams barely notice."""

from __future__ import annotations

SMOOTHING = 0.2
# Costs rise with the context a prompt has behind it: believe a rise sooner than a fall.
SMOOTHING_RISE = 0.5
# From about here on a token costs much less: matrix kernels fill up, and attention on CPUs goes tile by
# tile (ggml: from 64 rows). The costs of smaller and larger chunks are learnt apart, or the small ones
# that were affordable first would make larger ones look too dear for ever.
LARGE_CHUNK = 48
# Before anything was measured, and with nobody to hold up, a chat's first prompt goes in one step.
FIRST_CHUNK = 4 * LARGE_CHUNK
# While a long prompt is prefilled, every so many steps go without it: streams grow meanwhile, and what
# decoding them costs must not be taken for the prompt's cost.
REFRESH = 12
# However many prompts wait, streams are held up by no more than this many times the usual.
MOST_STRETCH = 4.0


class LlamaPacer:
    """Turns measured step times into a token budget for the next step's prefill.

    While streams decode, prefill may lengthen a step by ``stretch`` times the usual decode step, but
    at least by ``floor`` seconds' worth; while none do, a step may take ``idle_step`` seconds, so that
    an abort or a new request is noticed soon. Times in seconds.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        smallest: int = 8,
        stretch: float = 1.3,
        floor: float = 0.02,
        idle_step: float = 0.08,
    ) -> None:
        self._batch_size = batch_size
        self._smallest = smallest
        self._stretch = stretch
        self._floor = floor
        self._idle_step = idle_step
        self._decode_step = 0.0
        self._small_cost = 0.0  # of a token, in a chunk of that size
        self._large_cost = 0.0
        self._mixed_steps = 0

    def budget(self, decoding: int, prefilling: int = 1) -> int:
        """Tokens to prefill beside ``decoding`` streams: at least `smallest`, within the batch, and
        none now and then, to measure decoding alone.

        Where more prompts wait (``prefilling``) than streams decode, streams give way in proportion.
        """
        if decoding and self._mixed_steps >= REFRESH:
            return 0
        room = max(self._smallest, self._batch_size - decoding)
        seconds = self._idle_step
        if decoding:
            stretch = self._stretch * min(max(1.0, prefilling / decoding), MOST_STRETCH)
            seconds = max(self._floor, stretch * self._decode_step)
        large = _affordable(seconds, self._large_cost)
        if large is None:
            return min(LARGE_CHUNK if decoding else FIRST_CHUNK, room)  # to learn what it costs
        if large >= LARGE_CHUNK:
            return min(large, room)
        small = _affordable(seconds, self._small_cost or self._large_cost) or 0
        return min(max(self._smallest, min(small, LARGE_CHUNK - 1)), room)

    def observe(self, *, decoded: int, prefilled: int, seconds: float) -> None:
        """Learn from a step that decoded and prefilled so many tokens."""
        self._mixed_steps = self._mixed_steps + 1 if prefilled and decoded else 0
        if not prefilled:
            self._decode_step = _smooth(self._decode_step, seconds)
            return
        cost = max(seconds - (self._decode_step if decoded else 0.0), 0.1 * seconds) / prefilled
        if prefilled >= LARGE_CHUNK:
            self._large_cost = _smooth(self._large_cost, cost)
        else:
            self._small_cost = _smooth(self._small_cost, cost)


def _affordable(seconds: float, cost: float) -> int | None:
    """Tokens that fit into ``seconds``; None while nothing was measured."""
    return int(seconds / cost) if cost else None


def _smooth(old: float, new: float) -> float:
    return new if not old else old + (SMOOTHING_RISE if new > old else SMOOTHING) * (new - old)
