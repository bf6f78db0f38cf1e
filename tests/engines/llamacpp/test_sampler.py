from __future__ import annotations

from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
import pytest

from engines.base import GenerationRequest, Prompt, RareSampling, Sampling
from engines.errors import RequestError
from engines.llamacpp.sampler import Sampler, draw_among, log_probabilities

EOG = np.array([3], dtype=np.int32)


def sampler(prompt: tuple[int, ...] = (1,), **fields: object) -> Sampler:
    known = {"min_tokens", "ignore_eos", "generated", "stop_token_ids"}
    bad_words = fields.pop("bad_runs", ())
    request = GenerationRequest(
        "r",
        Prompt(prompt),
        Sampling(**{"temperature": 0.0, **{k: v for k, v in fields.items() if k not in known}}),  # type: ignore[arg-type]
        **{k: v for k, v in fields.items() if k in known},  # type: ignore[arg-type]
    )
    return Sampler(request, EOG, 5, bad_words)  # type: ignore[arg-type]


def row() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array([1.0, 2.0, -2.0, 4.0, 0.5], dtype=np.float32)


def test_bias_is_added() -> None:
    logits = row()
    sampler(logit_bias=((0, 10.0),)).edit(logits)
    assert logits.tolist() == [11.0, 2.0, -2.0, 4.0, 0.5]


def test_presence_and_frequency_count_what_was_generated() -> None:
    penalised = sampler(prompt=(0, 0), presence_penalty=1.0, frequency_penalty=0.5)
    for token in (1, 1, 4):
        penalised.accept(token)
    logits = row()
    penalised.edit(logits)
    assert logits.tolist() == [1.0, 2.0 - 1.0 - 1.0, -2.0, 4.0, 0.5 - 1.0 - 0.5]


def test_repetition_sees_the_prompt_and_divides_or_multiplies() -> None:
    penalised = sampler(prompt=(1, 2), repetition_penalty=2.0)
    penalised.accept(4)
    logits = row()
    penalised.edit(logits)
    assert logits.tolist() == [1.0, 1.0, -4.0, 4.0, 0.25]


def test_penalties_see_as_much_as_they_are_to() -> None:
    window = RareSampling(repeat_last_n=2)
    penalised = sampler(prompt=(0, 1, 2), repetition_penalty=2.0, presence_penalty=1.0, rare=window)
    seen = []
    for token in (None, 4, 4, 1):
        if token is not None:
            penalised.accept(token)
        logits = row()
        penalised.edit(logits)
        seen.append(logits.tolist())
    assert seen == [
        [1.0, 1.0, -4.0, 4.0, 0.5],
        [1.0, 2.0, -4.0, 4.0, 0.25 - 1],
        [1.0, 2.0, -2.0, 4.0, 0.25 - 1],
        [1.0, 1.0 - 1, -2.0, 4.0, 0.25 - 1],
    ]
    logits = row()
    sampler(prompt=(1,), repetition_penalty=2.0, rare=RareSampling(repeat_last_n=0)).edit(logits)
    assert logits.tolist() == row().tolist()


def test_the_end_is_banned_until_min_tokens() -> None:
    banning = sampler(min_tokens=1)
    logits = row()
    banning.edit(logits)
    assert logits[3] == -np.inf
    banning.accept(1)
    logits = row()
    banning.edit(logits)
    assert logits[3] == 4.0


def test_a_stop_token_is_banned_until_min_tokens_only() -> None:
    logits = row()
    sampler(stop_token_ids=(1,), min_tokens=1).edit(logits)
    assert np.flatnonzero(np.isneginf(logits)).tolist() == [1, 3]
    logits = row()
    sampler(stop_token_ids=(1, 3), ignore_eos=True).edit(logits)
    assert logits.tolist() == row().tolist()


def test_what_is_not_allowed_and_what_completes_a_bad_word_are_not_drawn() -> None:
    limited = sampler(allowed_token_ids=(0, 1, 4), bad_runs=((1,), (4, 0)))
    logits = row()
    limited.edit(logits)
    assert logits.argmax() == 0
    assert np.flatnonzero(np.isneginf(logits)).tolist() == [2, 3]
    limited.accept(4)
    logits = row()
    limited.edit(logits)
    assert logits.argmax() == 4


def test_what_was_generated_elsewhere_counts() -> None:
    penalised = sampler(
        generated=(1, 1, 4),
        presence_penalty=1.0,
        frequency_penalty=0.5,
        repetition_penalty=2.0,
        min_tokens=4,
        prompt=(),
    )
    logits = row()
    penalised.edit(logits)
    assert logits.tolist() == [1.0, 2.0 / 2 - 1.0 - 1.0, -2.0, -np.inf, 0.5 / 2 - 1.0 - 0.5]
    penalised.accept(0)
    logits = row()
    penalised.edit(logits)
    assert logits[3] == 4.0


def test_log_probabilities_sum_to_one_and_survive_large_logits() -> None:
    logits = np.array([1000.0, 1001.0, -1000.0], dtype=np.float32)
    result = log_probabilities(logits)
    assert abs(np.exp(result).sum() - 1.0) < 1e-6
    assert abs(result[1] - -0.3132617) < 1e-5


def test_a_chain_has_what_was_asked_for() -> None:
    def names(**fields: object) -> list[str]:
        made = Sampler(GenerationRequest("r", Prompt((1,)), Sampling(**fields)), EOG, 5)  # type: ignore[arg-type]
        count = lib.llama_sampler_chain_n(made.chain)
        found = [lib.llama_sampler_name(lib.llama_sampler_chain_get(made.chain, i)) for i in range(count)]
        made.close()
        return [name.decode() for name in found]

    assert names() == ["dist"]
    assert names(typical_p=0.5, top_p=0.9, temperature=0.5) == ["typical", "top-p", "temp", "dist"]
    rare = RareSampling(xtc_probability=0.5, top_n_sigma=1.0, dynatemp_range=0.5)
    assert names(rare=rare, min_p=0.1) == ["top-n-sigma", "min-p", "xtc", "temp-ext", "dist"]
    assert names(rare=RareSampling(mirostat=1), top_k=5, temperature=0.5) == ["temp", "mirostat"]
    assert names(rare=RareSampling(mirostat=2), top_k=5, temperature=0.5) == ["temp", "mirostat-v2"]


class Allowing:
    """A mask that allows some tokens."""

    def __init__(self, *tokens: int) -> None:
        self._tokens = list(tokens)

    def allowed(self, n_vocab: int) -> Any:
        allowed = np.zeros(n_vocab, dtype=np.bool_)
        allowed[self._tokens] = True
        return allowed


@pytest.mark.parametrize(
    ("fields", "allowed", "left"),
    [
        ({}, (1, 2), [1, 2]),
        ({"logit_bias": ((1, 100.0), (4, 100.0))}, (1, 2), [1, 2]),
        ({"bad_runs": ((1,), (2,))}, (1, 2), [1, 2]),
        ({"allowed_token_ids": (2, 4)}, (1, 2), [2]),
        ({"allowed_token_ids": (2, 4)}, (3,), [3]),
        ({"ignore_eos": True}, (3, 4), [4]),
        ({"ignore_eos": True}, (3,), [3]),
        ({"min_tokens": 3, "stop_token_ids": (2,)}, (0, 2, 3), [0]),
        ({"min_tokens": 3, "stop_token_ids": (2,)}, (2, 3), [2, 3]),
    ],
)
def test_a_mask_always_leaves_a_token(fields: dict[str, Any], allowed: Any, left: list[int]) -> None:
    for more in ({"temperature": 0.0}, {"temperature": 1.0, "typical_p": 0.5}):
        made = sampler(**fields, **more)
        logits = row()
        made.edit(logits, Allowing(*allowed))  # type: ignore[arg-type]
        assert np.flatnonzero(np.isfinite(logits)).tolist() == left
        if made.chain is not None:
            assert made.left is not None
            assert {draw_among(made.chain, logits, made.left) for _ in range(20)} <= set(left)


def test_nothing_to_go_on_with_is_an_error() -> None:
    with pytest.raises(RequestError, match="allowed_token_ids"):
        sampler(allowed_token_ids=(3,)).edit(row(), Allowing(1, 2))  # type: ignore[arg-type]
