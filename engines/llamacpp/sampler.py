"""Drawing the next token: logits are edited in numpy, then a native sampler chain draws.

Greedy rows need no chain: the stepper takes the arg max of all of them at once.
"""

from __future__ import annotations

import secrets
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt

from engines.base import Candidate, GenerationRequest, Sampling, TokenLogprob
from engines.llamacpp.model import LlamaModel

Row = npt.NDArray[np.float32]

UINT32 = 2**32
_FOREVER = 2**62


class Sampler:
    """The sampling state of one sequence. It survives preemption, so that a seed still decides."""

    def __init__(self, request: GenerationRequest, eog_ids: npt.NDArray[np.int32], n_vocab: int) -> None:
        sampling = request.sampling
        self.is_greedy = sampling.is_greedy
        self._sampling = sampling
        self._eog_ids = eog_ids
        self._ban_end_until = _FOREVER if request.ignore_eos else request.min_tokens
        self._generated = len(request.generated)
        self._bias_ids, self._biases = _bias(sampling)
        self._penalties = _Penalties.of(request, n_vocab)
        self.chain = None if self.is_greedy else _chain(sampling, request.generator_seed)

    def edit(self, row: Row) -> None:
        """Apply bias, penalties and the ban on ending to ``row``, in place."""
        if self._bias_ids is not None:
            row[self._bias_ids] += self._biases
        if self._penalties is not None:
            self._penalties.apply(row)
        if self._generated < self._ban_end_until:
            row[self._eog_ids] = -np.inf

    def accept(self, token: int) -> None:
        """Note that ``token`` was drawn."""
        self._generated += 1
        if self._penalties is not None:
            self._penalties.add(token)

    def close(self) -> None:
        chain, self.chain = self.chain, None
        if chain is not None:
            lib.llama_sampler_free(chain)


class _Penalties:
    """Presence and frequency penalties on generated tokens, repetition penalty on the prompt's too.

    The semantics are vLLM's, so that a request means the same on every engine.
    """

    def __init__(self, request: GenerationRequest, n_vocab: int) -> None:
        sampling, prompt = request.sampling, request.prompt.token_ids
        self._presence = sampling.presence_penalty
        self._frequency = sampling.frequency_penalty
        self._repetition = sampling.repetition_penalty
        self._counts: dict[int, int] = {}
        self._seen = {t for t in prompt if t < n_vocab} if self._repetition != 1.0 else set()
        for token in request.generated:
            self.add(token)

    @classmethod
    def of(cls, request: GenerationRequest, n_vocab: int) -> _Penalties | None:
        """None when every penalty is off."""
        sampling = request.sampling
        active = sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty != 1.0
        return cls(request, n_vocab) if active else None

    def add(self, token: int) -> None:
        self._counts[token] = self._counts.get(token, 0) + 1
        if self._repetition != 1.0:
            self._seen.add(token)

    def apply(self, row: Row) -> None:
        if self._seen:
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


def token_logprob(model: LlamaModel, logprobs: Row, token: int, top: int) -> TokenLogprob:
    """The chosen token's log probability and the ``top`` best candidates, best first."""

    def candidate(i: int) -> Candidate:
        return Candidate(i, model.label(i), float(logprobs[i]))

    best: list[int] = []
    if top:
        some = np.argpartition(logprobs, -top)[-top:]
        best = some[np.argsort(-logprobs[some], kind="stable")].tolist()
    return TokenLogprob(candidate(token), tuple(candidate(i) for i in best))


def _bias(sampling: Sampling) -> tuple[npt.NDArray[np.int64] | None, Row]:
    if not sampling.logit_bias:
        return None, np.empty(0, dtype=np.float32)
    ids, biases = zip(*sampling.logit_bias, strict=True)
    return np.array(ids, dtype=np.int64), np.array(biases, dtype=np.float32)


def _chain(sampling: Sampling, seed: int | None) -> Any:
    """top-k → top-p → min-p → temperature → draw: llama.cpp's own order."""
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    if sampling.top_k > 0:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1.0:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0.0:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_min_p(sampling.min_p, 1))
    if sampling.temperature != 1.0:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_temp(sampling.temperature))
    # 2**32 - 1 means "any seed" to llama.cpp.
    seed = secrets.randbelow(UINT32 - 1) if seed is None else seed % (UINT32 - 1)
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_dist(seed))
    return chain
