"""Sampling: the rules by which the next token is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# What numbers of 32 bits can be computed with: colder is greedy (vLLM draws the line here too).
GREEDY_BELOW = 1e-5
LEAST_TOP_P = 1e-6
LEAST_REPETITION_PENALTY = 0.01
MOST_TOP_K = 2**31 - 1


@dataclass(frozen=True, slots=True)
class RareSampling:
    """Ways of drawing that few engines have (`engines.descriptor`), under llama.cpp's names and as it means
    them. By default each is off: penalties see so many of the last tokens as ``repeat_last_n`` says, and -1
    is all."""

    repeat_last_n: int = -1
    mirostat: Literal[0, 1, 2] = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    top_n_sigma: float = 0.0
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0


NOTHING_RARE = RareSampling()


@dataclass(frozen=True, slots=True)
class Sampling:
    """The rules by which the next token is drawn.

    ``temperature`` 0 is greedy. ``top_k`` 0, and ``top_p``, ``typical_p`` 1 and ``min_p`` 0 switch their
    filter off; not every engine has typical sampling (`engines.descriptor`).
    ``presence_penalty`` and ``frequency_penalty`` see generated tokens only; ``repetition_penalty``
    (1 = off) sees the prompt too. ``logit_bias`` pairs a token id with what is added to its logit.
    ``allowed_token_ids`` are all that may be drawn; None: any. None of ``bad_words`` is generated, neither
    as it is nor behind a space, unless nothing else may be. Extreme values become the most extreme ones that
    still can be computed with.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    rare: RareSampling = NOTHING_RARE
    seed: int | None = None

    def __post_init__(self) -> None:
        # Of tokens that are equally likely, a filter keeps another than the greedy choice is.
        is_cold = self.temperature < GREEDY_BELOW or self.top_p < LEAST_TOP_P
        bounded = {
            "temperature": 0.0 if is_cold else self.temperature,
            "top_p": max(self.top_p, LEAST_TOP_P),
            "top_k": min(self.top_k, MOST_TOP_K),
            "repetition_penalty": max(self.repetition_penalty, LEAST_REPETITION_PENALTY),
        }
        for name, value in bounded.items():
            object.__setattr__(self, name, value)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0
