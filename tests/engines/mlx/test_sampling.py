from __future__ import annotations

import math
from collections import Counter
from typing import Any

import mlx.core as mx
import pytest

from engines.base import GenerationRequest, Prompt, Sampling
from engines.mlx.logits import LogitsEditor
from engines.mlx.sampling import LogprobRecorder, SharedSamplers, TokenSampler, draw_greedy, keep_likely
from engines.text.tokens.bad_words import UNWANTED

ROW = [math.log(p) for p in (0.1, 0.4, 0.2, 0.3)]


def likely(**fields: Any) -> list[int]:
    kept = keep_likely(mx.array([ROW]), Sampling(**fields))[0].tolist()
    return [i for i, value in enumerate(kept) if value > -math.inf]


def editor(generated: tuple[int, ...] = (), **fields: Any) -> LogitsEditor:
    names = ("min_tokens", "ignore_eos", "stop_token_ids")
    request_fields = {name: fields.pop(name) for name in names if name in fields}
    bad_words = fields.pop("bad_runs", ())
    request = GenerationRequest("r", Prompt((0, 1)), Sampling(**fields), **request_fields)
    made = LogitsEditor.of(request, generated, (3,), 4, bad_words)
    assert made is not None
    return made


def edit(editor: LogitsEditor, tokens: list[int], logits: list[float]) -> list[float]:
    edited: list[float] = editor(mx.array(tokens), mx.array([logits], dtype=mx.float32))[0].tolist()
    return edited


def test_filters_keep_the_likely() -> None:
    assert likely() == [0, 1, 2, 3]
    assert likely(top_k=2) == [1, 3]
    assert likely(top_k=9) == [0, 1, 2, 3]
    assert likely(top_p=0.39) == [1]
    assert likely(top_p=0.65) == [1, 3]
    assert likely(top_p=0.85) == [1, 2, 3]
    assert likely(top_p=1e-9) == [1]
    assert likely(min_p=0.6) == [1, 3]
    assert likely(top_k=3, top_p=0.5, min_p=0.9) == [1]
    # The entropy is 1.28: 0.3 (1.20) is nearest to it, then 0.2 (1.61), 0.4 (0.92) and 0.1 (2.30).
    assert likely(typical_p=1e-9) == [3]
    assert likely(typical_p=0.4) == [2, 3]
    assert likely(typical_p=0.6) == [1, 2, 3]


def test_stop_tokens_are_banned_until_min_tokens_only() -> None:
    flat = [0.0, 0.0, 0.0, 0.0]
    assert edit(editor(stop_token_ids=(1,), min_tokens=1), [0, 1], flat) == [0, -math.inf, 0, -math.inf]
    assert edit(editor(stop_token_ids=(1, 3), ignore_eos=True), [0, 1], flat) == flat


def test_what_is_not_allowed_and_what_completes_a_bad_word_are_not_drawn() -> None:
    limited = editor(allowed_token_ids=(0, 1, 2), bad_runs=((1,), (2, 0), (0, 1, 2)))
    row = [0.0, 1.0, -1.0, 2.0]
    assert edit(limited, [0, 1], row) == [0, 1 - UNWANTED, -1, -math.inf]
    assert edit(limited, [0, 1, 2], row) == [-UNWANTED, 1 - UNWANTED, -1, -math.inf]
    assert edit(limited, [0, 1, 2, 0], row) == [0, 1 - UNWANTED, -1, -math.inf]


def test_draws_follow_the_distribution() -> None:
    sampler = TokenSampler(Sampling(), seed=1)
    counts = Counter(sampler(mx.array([ROW] * 4000)).tolist())
    for token, logprob in enumerate(ROW):
        assert counts[token] / 4000 == pytest.approx(math.exp(logprob), abs=0.04)


def test_a_seed_decides_whatever_the_row_and_the_start() -> None:
    def draws(sampler: TokenSampler, count: int) -> list[int]:
        return [sampler(mx.array([ROW])).item() for _ in range(count)]

    whole = draws(TokenSampler(Sampling(), seed=5), 20)
    assert draws(TokenSampler(Sampling(), seed=5), 20) == whole
    assert draws(TokenSampler(Sampling(), seed=5, position=12), 8) == whole[12:]
    assert draws(TokenSampler(Sampling(), seed=6), 20) != whole
    assert draws(TokenSampler(Sampling(), seed=-1), 20) != draws(TokenSampler(Sampling(), seed=1), 20)


def test_requests_that_draw_alike_share_a_sampler() -> None:
    shared = SharedSamplers()
    warm, hot = Sampling(temperature=0.5), Sampling(temperature=2.0)
    assert shared.get(warm, 0) is shared.get(Sampling(temperature=0.5), 3)
    assert shared.get(warm, 0) is not shared.get(hot, 0)
    assert shared.get(Sampling(temperature=0.5, seed=1), 0) is not shared.get(
        Sampling(temperature=0.5, seed=1), 0
    )
    assert shared.get(Sampling(temperature=0.0, seed=1), 0) is draw_greedy


def test_nothing_to_edit() -> None:
    request = GenerationRequest("r", Prompt((0,)))
    assert LogitsEditor.of(request, (), end_ids=(3,), n_vocab=4) is None


def test_bias_is_added() -> None:
    biased = editor(logit_bias=((1, 2.5),))
    assert edit(biased, [0, 1], [1, 1, 1, 1]) == [1, 3.5, 1, 1]


def test_presence_and_frequency_see_generated_tokens_only() -> None:
    penalised = editor(presence_penalty=1.0, frequency_penalty=0.5)
    assert edit(penalised, [0, 1], [5, 5, 5, 5]) == [5, 5, 5, 5]
    assert edit(penalised, [0, 1, 2], [5, 5, 5, 5]) == [5, 5, 3.5, 5]
    assert edit(penalised, [0, 1, 2, 2], [5, 5, 5, 5]) == [5, 5, 3.0, 5]


def test_repetition_sees_the_prompt_too() -> None:
    penalised = editor(repetition_penalty=2.0)
    assert edit(penalised, [0, 1], [4, -4, 4, -4]) == [2, -8, 4, -4]
    assert edit(penalised, [0, 1, 3], [4, -4, 4, -4]) == [2, -8, 4, -8]


def test_penalties_survive_preemption() -> None:
    resumed = editor(generated=(2, 2), frequency_penalty=0.5)
    assert edit(resumed, [0, 1, 2, 2], [5, 5, 5, 5]) == [5, 5, 4, 5]
    assert edit(resumed, [0, 1, 2, 2, 3], [5, 5, 5, 5]) == [5, 5, 4, 4.5]


def test_ending_is_banned_for_min_tokens_or_for_ever() -> None:
    minimum = editor(min_tokens=2)
    assert [edit(minimum, [0], [1, 1, 1, 1])[3] for _ in range(3)] == [-math.inf, -math.inf, 1]
    never = editor(ignore_eos=True)
    assert [edit(never, [0], [1, 1, 1, 1])[3] for _ in range(3)] == [-math.inf] * 3
    resumed = editor(generated=(1,), min_tokens=2)
    assert [edit(resumed, [0], [1, 1, 1, 1])[3] for _ in range(2)] == [-math.inf, 1]


def test_recorded_logprobs_are_of_the_raw_distribution() -> None:
    recorder = LogprobRecorder(draw_greedy, top=2)
    logits = mx.array([ROW]) + 7.0
    assert recorder.watch(mx.array([0]), logits) is logits
    assert recorder(mx.array([[9.0, 0.0, 0.0, 0.0]])).tolist() == [0]
    recorder.watch(mx.array([0, 0]), logits)
    recorder(mx.array([[0.0, 0.0, 0.0, 9.0]]))
    first, second = recorder.pop(), recorder.pop()
    assert first.chosen == pytest.approx(ROW[0], abs=1e-5)
    assert [i for i, _ in first.top] == [1, 3]
    assert first.top[0][1] == pytest.approx(ROW[1], abs=1e-5)
    assert second.chosen == pytest.approx(ROW[3], abs=1e-5)


def test_no_alternatives_wanted_or_more_than_there_are() -> None:
    for top, count in ((0, 0), (20, 4)):
        recorder = LogprobRecorder(draw_greedy, top)
        recorder.watch(mx.array([0]), mx.array([ROW]))
        recorder(mx.array([ROW]))
        assert len(recorder.pop().top) == count
