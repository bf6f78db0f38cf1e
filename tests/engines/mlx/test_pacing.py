from __future__ import annotations

from engines.mlx.pacing import LEAST_TOKENS, MOST_TOKENS, MlxPacer


def pacer(token_seconds: float, decode_seconds: float) -> MlxPacer:
    pacer = MlxPacer()
    pacer.observe(prompt_tokens=100, prompt_seconds=100 * token_seconds, decode_seconds=decode_seconds)
    return pacer


def test_streams_are_held_up_by_about_a_step() -> None:
    assert pacer(0.001, 0.2).budget(decoding=4) == 300
    assert pacer(0.001, 0.2).budget(decoding=0) == 1000


def test_chunks_are_neither_tiny_nor_endless() -> None:
    assert MlxPacer().budget(decoding=0) == LEAST_TOKENS
    assert pacer(1.0, 0.1).budget(decoding=4) == LEAST_TOKENS
    assert pacer(1e-9, 0.1).budget(decoding=4) == MOST_TOKENS


def test_steps_without_a_part_say_nothing_about_it() -> None:
    paced = pacer(0.001, 0.2)
    paced.observe(prompt_tokens=0, prompt_seconds=0.0, decode_seconds=0.0)
    assert paced.budget(decoding=4) == 300
