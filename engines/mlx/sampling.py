"""Drawing the next token, as the samplers that mlx-lm's batches call.

Everything is a lazy graph: nothing here waits for a value, so that a step is evaluated at once, while the
step before it is being delivered. Nor is anything compiled: on Linux, mlx would run a C++ compiler for
every new constant.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from engines.base import Sampling

Sampler = Callable[[mx.array], mx.array]
Drawn = tuple[mx.array, mx.array, mx.array]

MOST_SHARED = 64


def draw_greedy(logprobs: mx.array) -> mx.array:
    """The most likely token of each row."""
    return mx.argmax(logprobs, axis=-1)


class TokenSampler:
    """Draws with a key made of ``seed`` and the draw's number, so that nothing else can change the answer."""

    def __init__(self, sampling: Sampling, seed: int, position: int = 0) -> None:
        """``position`` is the number of the first draw."""
        self._sampling = sampling
        self._seed = seed
        self._position = position

    def __call__(self, logprobs: mx.array) -> mx.array:
        """A token for each row of ``logprobs``, (rows, vocabulary)."""
        key = mx.random.key(_key(self._seed, self._position))
        self._position += 1
        kept = keep_likely(logprobs, self._sampling)
        return mx.random.categorical(kept / self._sampling.temperature, key=key)


def _key(seed: int, position: int) -> int:
    return int.from_bytes(hashlib.blake2b(b"%d/%d" % (seed, position), digest_size=8).digest(), "little")


def keep_likely(logprobs: mx.array, sampling: Sampling) -> mx.array:
    """top-k, typical-p, top-p, then min-p: what they drop becomes -inf. Each row keeps its best token."""
    if 0 < sampling.top_k < logprobs.shape[-1]:
        least = mx.min(mx.topk(logprobs, sampling.top_k, axis=-1), axis=-1, keepdims=True)
        logprobs = mx.where(logprobs < least, -mx.inf, logprobs)
    if sampling.typical_p < 1.0:
        logprobs = _typical(logprobs, sampling.typical_p)
    if sampling.top_p < 1.0:
        logprobs = _top_p(logprobs, sampling.top_p)
    if sampling.min_p > 0.0:
        least = mx.max(logprobs, axis=-1, keepdims=True) + math.log(sampling.min_p)
        logprobs = mx.where(logprobs < least, -mx.inf, logprobs)
    return logprobs


def _top_p(logprobs: mx.array, top_p: float) -> mx.array:
    """Keep the fewest tokens whose probability reaches ``top_p`` of what there is."""
    ascending = mx.sort(logprobs, axis=-1)
    chances = mx.softmax(ascending, axis=-1)
    above = mx.cumsum(chances, axis=-1, reverse=True, inclusive=False)
    dropped = mx.sum(above >= top_p, axis=-1, keepdims=True)
    dropped = mx.minimum(dropped, logprobs.shape[-1] - 1)
    least = mx.take_along_axis(ascending, dropped, axis=-1)
    return mx.where(logprobs < least, -mx.inf, logprobs)


def _typical(logprobs: mx.array, typical_p: float) -> mx.array:
    """Keep the fewest tokens whose probability reaches ``typical_p``, those first whose information is
    nearest to what is expected (Meister et al. 2022)."""
    logprobs = logprobs - mx.logsumexp(logprobs, axis=-1, keepdims=True)
    chances = mx.exp(logprobs)
    entropy = -mx.sum(mx.where(chances > 0, chances * logprobs, 0.0), axis=-1, keepdims=True)
    distance = mx.abs(logprobs + entropy)
    order = mx.argsort(distance, axis=-1)
    nearest = mx.take_along_axis(distance, order, axis=-1)
    reached = mx.cumsum(mx.take_along_axis(chances, order, axis=-1), axis=-1, inclusive=False)
    last = mx.maximum(mx.sum(reached < typical_p, axis=-1, keepdims=True), 1) - 1
    return mx.where(distance > mx.take_along_axis(nearest, last, axis=-1), -mx.inf, logprobs)


class SharedSamplers:
    """One sampler for all requests that draw alike and have no seed: a batch of them is drawn in one go."""

    def __init__(self) -> None:
        self._samplers: dict[tuple[float, ...], TokenSampler] = {}

    def get(self, sampling: Sampling, position: int) -> Sampler:
        """The sampler for a request whose next draw is number ``position``."""
        if sampling.is_greedy:
            return draw_greedy
        if sampling.seed is not None:
            return TokenSampler(sampling, sampling.seed, position)
        filters = (sampling.top_p, sampling.top_k, sampling.min_p, sampling.typical_p)
        alike = (sampling.temperature, *filters)
        if alike not in self._samplers:
            if len(self._samplers) >= MOST_SHARED:
                self._samplers.clear()
            self._samplers[alike] = TokenSampler(sampling, secrets.randbits(64))
        return self._samplers[alike]


class RawLogprob(NamedTuple):
    """Natural-log probabilities before any edit: the chosen token's, and others', best first."""

    chosen: float
    top: tuple[tuple[int, float], ...]


class LogprobRecorder:
    """Watches one sequence: first of its logits processors, and around its sampler."""

    def __init__(self, sampler: Sampler, top: int, wanted: Sequence[int] = ()) -> None:
        """Tells of the tokens ``wanted``, else of the ``top`` best."""
        self._sampler = sampler
        self._top = top
        self._wanted = mx.array([wanted], dtype=mx.uint32) if wanted else None
        self._raw: mx.array | None = None
        self._drawn: deque[Drawn] = deque()

    def watch(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """The logits processor: notes the raw distribution and changes nothing."""
        self._raw = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        return logits

    def __call__(self, logprobs: mx.array) -> mx.array:
        """The sampler."""
        token = self._sampler(logprobs)
        raw = self._raw
        assert raw is not None
        chosen = mx.take_along_axis(raw, token[:, None], axis=-1)
        ids = self._best(raw) if self._wanted is None else self._wanted
        drawn = (chosen, ids, mx.take_along_axis(raw, ids, axis=-1))
        # Now: evaluated later, they would wait for the step that is computed ahead.
        mx.async_eval(*drawn)  # type: ignore[no-untyped-call]
        self._drawn.append(drawn)
        return token

    def _best(self, raw: mx.array) -> mx.array:
        count = min(self._top, raw.shape[-1])
        if not count:
            return mx.zeros((1, 0), mx.uint32)
        return mx.argpartition(-raw, kth=count - 1, axis=-1)[:, :count]

    def pop(self) -> RawLogprob:
        """The record of the oldest token not yet asked for."""
        chosen, ids, values = self._drawn.popleft()
        best = zip(np.array(ids[0]).tolist(), np.array(values[0]).tolist(), strict=True)
        ranked = sorted(best, key=lambda pair: (-pair[1], pair[0]))
        return RawLogprob(float(np.array(chosen)[0, 0]), tuple(ranked))
