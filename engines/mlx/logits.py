"""Edits of logits before a token is drawn, as the logits processors that mlx-lm's batches call.

All but a mask is a lazy graph, see `engines.mlx.sampling`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from engines.base import GenerationRequest, Sampling
from engines.mlx.masks import SequenceMask
from engines.text.tokens.bad_words import UNWANTED, Run

Ids = npt.NDArray[np.int32]


class LogitsEditor:
    """Bias, penalties and bans of one sequence; penalties mean what they mean in vLLM."""

    def __init__(
        self,
        request: GenerationRequest,
        generated: Sequence[int],
        end_ids: Sequence[int],
        n_vocab: int,
        bad_words: Sequence[Run] = (),
        mask: SequenceMask | None = None,
    ) -> None:
        """``generated`` are the answer's tokens so far, if the sequence was preempted or resumes.
        ``bad_words`` are the tokens of those that ``request`` names."""
        sampling = request.sampling
        self._sampling = sampling
        self._n_vocab = n_vocab
        self._mask = mask
        self._banned_draws = request.min_tokens - len(generated)
        stops = set(request.stop_token_ids)
        self._ends = _ids(end_ids)
        self._not_yet = _ids({*end_ids, *stops} if request.min_tokens else ())
        self._never = _ids({*end_ids} - stops if request.ignore_eos else ())
        self._forbidden = _forbidden(sampling, n_vocab)
        self._single = mx.array(_ids(run[0] for run in bad_words if len(run) == 1))
        self._runs = [(mx.array(run[:-1]), run[-1]) for run in bad_words if len(run) > 1]
        self._generated = len(generated)
        pairs = sampling.logit_bias
        self._bias_ids = mx.array([token for token, _ in pairs], dtype=mx.uint32)
        self._biases = mx.array([bias for _, bias in pairs], dtype=mx.float32)
        self._is_biased = bool(pairs)
        self._counts = _counts(generated, n_vocab) if _penalises(sampling) else None
        self._prompt = (
            _counts(request.prompt.token_ids, n_vocab) if sampling.repetition_penalty != 1.0 else None
        )
        self._draws = 0

    @classmethod
    def of(
        cls,
        request: GenerationRequest,
        generated: Sequence[int],
        end_ids: Sequence[int],
        n_vocab: int,
        bad_words: Sequence[Run] = (),
        mask: SequenceMask | None = None,
    ) -> LogitsEditor | None:
        """None if nothing is to be edited."""
        sampling = request.sampling
        ends = bool(end_ids or request.stop_token_ids)
        bans = ends and (request.ignore_eos or request.min_tokens > len(generated))
        limits = bool(bad_words) or mask is not None or sampling.allowed_token_ids is not None
        if bans or limits or sampling.logit_bias or _penalises(sampling):
            return cls(request, generated, end_ids, n_vocab, bad_words, mask)
        return None

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Edit ``logits``, (1, vocabulary), for the token after ``tokens``. Called once a draw."""
        if self._mask is not None:
            self._mask.fill(logits)
        if self._counts is not None and self._draws:
            self._counts = self._counts.at[tokens[-1:]].add(1.0)
        if self._is_biased:
            logits = logits.at[:, self._bias_ids].add(self._biases)
        if self._counts is not None:
            logits = self._penalise(logits, self._counts)
        logits = self._limit(self._discourage(tokens, logits))
        self._draws += 1
        return logits

    def _limit(self, logits: mx.array) -> mx.array:
        """Leave what may be drawn."""
        banned = self._not_yet if self._draws < self._banned_draws else self._never
        if self._mask is not None:
            choices = self._mask.choices(self._n_vocab, self._ends, self._forbidden, banned)
            if choices is not None:
                return mx.where(mx.array(choices), logits, -mx.inf)
        if self._forbidden is not None:
            logits = mx.where(mx.array(self._forbidden), -mx.inf, logits)
        if banned.size:
            logits[:, mx.array(banned)] = -mx.inf
        return logits

    def _discourage(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Make bad words what is drawn only if all else is forbidden."""
        if self._single.size:
            logits = logits.at[:, self._single].add(-UNWANTED)
        for before, last in self._runs:
            if before.size <= self._generated + self._draws:
                completes = mx.all(tokens[-before.size :] == before)
                logits = logits.at[:, last].add(mx.where(completes, -UNWANTED, 0.0))
        return logits

    def _penalise(self, logits: mx.array, counts: mx.array) -> mx.array:
        sampling = self._sampling
        if self._prompt is not None:
            rate = sampling.repetition_penalty
            repeated = mx.where(logits > 0, logits / rate, logits * rate)
            logits = mx.where(self._prompt + counts > 0, repeated, logits)
        return logits - sampling.frequency_penalty * counts - sampling.presence_penalty * (counts > 0)


def _ids(tokens: Iterable[int]) -> Ids:
    return np.array(sorted(tokens), dtype=np.int32)


def _forbidden(sampling: Sampling, n_vocab: int) -> npt.NDArray[np.bool_] | None:
    """The tokens that are not among those that may be drawn."""
    if sampling.allowed_token_ids is None:
        return None
    forbidden = np.ones(n_vocab, dtype=np.bool_)
    forbidden[list(sampling.allowed_token_ids)] = False
    return forbidden


def _penalises(sampling: Sampling) -> bool:
    return bool(sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty != 1.0)


def _counts(tokens: Sequence[int], n_vocab: int) -> mx.array:
    counted = np.bincount(np.asarray(tokens, dtype=np.int64), minlength=n_vocab)
    return mx.array(counted.astype(np.float32))
