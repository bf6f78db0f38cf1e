"""Drawing the next token: logits are edited in numpy, then a native sampler chain draws.

Greedy rows need no chain: the stepper takes the arg max of all of them at once.
"""

from __future__ import annotations

import ctypes
import secrets
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt

from engines.base import Candidate, GenerationRequest, Sampling, TokenLogprob
from engines.llamacpp.model import LlamaModel
from engines.text.grammar import TokenMask, combine
from engines.text.tokens.bad_words import UNWANTED, BadWords, Run

Row = npt.NDArray[np.float32]

UINT32 = 2**32
# Tokens from which Mirostat 1 estimates: llama.cpp's own number.
MIROSTAT_M = 100
# So many tokens are drawn from sooner than the whole vocabulary.
FEW = 4096

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Sampler:
    """The sampling state of one sequence. It survives preemption, so that a seed still decides."""

    def __init__(
        self,
        request: GenerationRequest,
        eog_ids: npt.NDArray[np.int32],
        n_vocab: int,
        bad_words: Sequence[Run] = (),
    ) -> None:
        """``bad_words`` are the tokens of those that ``request`` names."""
        sampling = request.sampling
        self.is_greedy = sampling.is_greedy
        self._sampling = sampling
        self._generated = len(request.generated)
        self._min_tokens = request.min_tokens
        self._eog_ids = eog_ids
        stops = np.array(request.stop_token_ids, dtype=np.int32)
        self._end_ids = np.union1d(eog_ids, stops) if request.min_tokens else stops
        self._never_ids = np.setdiff1d(eog_ids, stops) if request.ignore_eos else None
        self._forbidden = _forbidden(sampling, n_vocab)
        self._bad_words = BadWords(bad_words, request.generated) if bad_words else None
        self._bias_ids, self._biases = _bias(sampling)
        self._penalties = _Penalties.of(request)
        self.chain = None if self.is_greedy else _chain(sampling, request.generator_seed, n_vocab)
        # The only tokens that can be drawn after `edit`, where it pays to look at them alone.
        self.left: npt.NDArray[np.intp] | None = None

    def edit(self, row: Row, mask: TokenMask | None = None) -> None:
        """Apply bias, penalties, bans and ``mask`` to ``row``, in place.

        Raises `EngineError` if the answer cannot go on as its structure has it.
        """
        self.left = None
        if self._bias_ids is not None:
            row[self._bias_ids] += self._biases
        if self._penalties is not None:
            self._penalties.apply(row)
        if self._bad_words is not None:
            row[self._bad_words.banned()] -= UNWANTED
        banned = self._banned()
        if mask is not None:
            allowed = mask.allowed(row.size)
            choices = combine(allowed, self._eog_ids, forbidden=self._forbidden, banned=banned)
            np.copyto(row, -np.inf, where=~choices)
            self.left = self._few(choices)
            return
        if self._forbidden is not None:
            row[self._forbidden] = -np.inf
        if banned is not None:
            row[banned] = -np.inf

    def _few(self, choices: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp] | None:
        if self.chain is None:
            return None
        # Typical sampling takes the logarithm of each probability, also of none.
        is_worth_it = np.count_nonzero(choices) <= FEW or self._sampling.typical_p < 1.0
        return np.flatnonzero(choices) if is_worth_it else None

    def _banned(self) -> npt.NDArray[np.int32] | None:
        """The tokens that must not end the answer now."""
        if self._generated < self._min_tokens:
            # What never ends it is among these.
            return self._end_ids
        return self._never_ids

    def accept(self, token: int) -> None:
        """Note that ``token`` was drawn."""
        self._generated += 1
        if self._penalties is not None:
            self._penalties.add(token)
        if self._bad_words is not None:
            self._bad_words.add(token)

    def close(self) -> None:
        chain, self.chain = self.chain, None
        if chain is not None:
            lib.llama_sampler_free(chain)


class _Penalties:
    """Presence and frequency penalties on generated tokens, repetition penalty on the prompt's too.

    The semantics are vLLM's, so that a request means the same on every engine. With ``repeat_last_n`` all of
    them see so many of the last tokens, which is llama.cpp's own way.
    """

    def __init__(self, request: GenerationRequest) -> None:
        sampling, prompt = request.sampling, request.prompt.token_ids
        if request.prompt.media:
            prompt = tuple(token for token in prompt if token >= 0)  # the others are pictures
        self._presence = sampling.presence_penalty
        self._frequency = sampling.frequency_penalty
        self._repetition = sampling.repetition_penalty
        size = self._size = sampling.rare.repeat_last_n
        visible = prompt if size < 0 else prompt[-size:]
        self._counts: Counter[int] = Counter()
        self._seen = Counter(visible) if self._repetition != 1.0 or size > 0 else Counter[int]()
        self._window = deque((token, False) for token in visible) if size > 0 else None
        for token in request.generated:
            self.add(token)

    @classmethod
    def of(cls, request: GenerationRequest) -> _Penalties | None:
        """None when every penalty is off."""
        sampling = request.sampling
        active = sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty != 1.0
        return cls(request) if active and sampling.rare.repeat_last_n else None

    def add(self, token: int) -> None:
        self._count(token, True, 1)
        if self._window is not None:
            self._window.append((token, True))
            if len(self._window) > self._size:
                self._count(*self._window.popleft(), -1)

    def _count(self, token: int, drawn: bool, change: int) -> None:
        for counts in (self._counts, self._seen) if drawn else (self._seen,):
            counts[token] += change
            if not counts[token]:
                del counts[token]

    def apply(self, row: Row) -> None:
        if self._seen and self._repetition != 1.0:
            ids = np.fromiter(self._seen, dtype=np.int64, count=len(self._seen))
            values = row[ids]
            row[ids] = np.where(values > 0, values / self._repetition, values * self._repetition)
        if self._counts:
            ids = np.fromiter(self._counts.keys(), dtype=np.int64, count=len(self._counts))
            counts = np.fromiter(self._counts.values(), dtype=np.float32, count=len(self._counts))
            row[ids] -= self._frequency * counts + self._presence


def log_probabilities(row: Row) -> Row:
    """Natural-log softmax of ``row`` (a copy)."""
    shifted = row - row.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()), dtype=np.float32)


def token_logprob(
    model: LlamaModel, logprobs: Row, token: int, top: int, wanted: Sequence[int] = ()
) -> TokenLogprob:
    """The chosen token's log probability and those ``wanted``, else of the ``top`` best, best first."""

    def candidate(i: int) -> Candidate:
        return Candidate(i, model.label(i), float(logprobs[i]))

    best = list(wanted)
    if top and not best:
        some = np.argpartition(logprobs, -top)[-top:]
        best = some[np.argsort(-logprobs[some], kind="stable")].tolist()
    rank = int((logprobs > logprobs[token]).sum()) + 1
    return TokenLogprob(candidate(token), tuple(candidate(i) for i in best), rank)


def draw_among(chain: Any, row: Row, tokens: npt.NDArray[np.intp]) -> int:
    """Draw one of ``tokens`` with a native chain from ``row``."""
    candidates = np.zeros(tokens.size, dtype=_CANDIDATE)
    candidates["id"] = tokens
    candidates["logit"] = row[tokens]
    array = lib.llama_token_data_array(
        data=candidates.ctypes.data_as(lib.llama_token_data_p), size=tokens.size, selected=-1, sorted=False
    )
    lib.llama_sampler_apply(chain, ctypes.byref(array))
    token = int(candidates["id"][array.selected])
    lib.llama_sampler_accept(chain, token)
    return token


def _bias(sampling: Sampling) -> tuple[npt.NDArray[np.int64] | None, Row]:
    if not sampling.logit_bias:
        return None, np.empty(0, dtype=np.float32)
    ids, biases = zip(*sampling.logit_bias, strict=True)
    return np.array(ids, dtype=np.int64), np.array(biases, dtype=np.float32)


def _forbidden(sampling: Sampling, n_vocab: int) -> npt.NDArray[np.bool_] | None:
    """The tokens that are not among those that may be drawn."""
    if sampling.allowed_token_ids is None:
        return None
    forbidden = np.ones(n_vocab, dtype=np.bool_)
    forbidden[list(sampling.allowed_token_ids)] = False
    return forbidden


def _chain(sampling: Sampling, seed: int | None, n_vocab: int) -> Any:
    """A native chain that draws. 2**32 - 1 would mean "any seed" to llama.cpp."""
    seed = secrets.randbelow(UINT32 - 1) if seed is None else seed % (UINT32 - 1)
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for sampler in _samplers(sampling, seed, n_vocab):
        lib.llama_sampler_chain_add(chain, sampler)
    return chain


def _samplers(sampling: Sampling, seed: int, n_vocab: int) -> Iterator[Any]:
    """top-n-sigma → top-k → typical-p → top-p → min-p → XTC → temperature → draw: llama.cpp's own order."""
    rare = sampling.rare
    if rare.mirostat:  # filters by itself
        yield lib.llama_sampler_init_temp(sampling.temperature)
        tau, eta = rare.mirostat_tau, rare.mirostat_eta
        if rare.mirostat == 1:
            yield lib.llama_sampler_init_mirostat(n_vocab, seed, tau, eta, MIROSTAT_M)
        else:
            yield lib.llama_sampler_init_mirostat_v2(seed, tau, eta)
        return
    if rare.top_n_sigma > 0.0:
        yield lib.llama_sampler_init_top_n_sigma(rare.top_n_sigma)
    if sampling.top_k > 0:
        yield lib.llama_sampler_init_top_k(sampling.top_k)
    if sampling.typical_p < 1.0:
        yield lib.llama_sampler_init_typical(sampling.typical_p, 1)
    if sampling.top_p < 1.0:
        yield lib.llama_sampler_init_top_p(sampling.top_p, 1)
    if sampling.min_p > 0.0:
        yield lib.llama_sampler_init_min_p(sampling.min_p, 1)
    if rare.xtc_probability > 0.0:
        yield lib.llama_sampler_init_xtc(rare.xtc_probability, rare.xtc_threshold, 1, seed)
    if rare.dynatemp_range > 0.0:
        spread, exponent = rare.dynatemp_range, rare.dynatemp_exponent
        yield lib.llama_sampler_init_temp_ext(sampling.temperature, spread, exponent)
    elif sampling.temperature != 1.0:
        yield lib.llama_sampler_init_temp(sampling.temperature)
    yield lib.llama_sampler_init_dist(seed)
