"""Masks of a batch, told of each token a step before it is delivered."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from engines.base import GenerationRequest, Prompt, Sampling, Structure
from engines.errors import EngineError
from engines.mlx.logits import LogitsEditor
from engines.mlx.masks import SequenceMask, StepMasks
from engines.mlx.sampling import draw_greedy
from engines.mlx.sequence import MlxSequence
from engines.stream import ChunkStream
from engines.text.grammar import Compiler, TokenMask
from support.grammars import END, N_VOCAB, OTHER_END, byte_vocabulary
from support.output import text_output

ENDS = (END, OTHER_END)


async def mask_of(regex: str) -> TokenMask:
    return (await Compiler(byte_vocabulary()).compile(Structure("regex", regex))).mask()


class Row:
    """One sequence of a batch: what mlx-lm does with its processor and sampler."""

    def __init__(self, mask: TokenMask, together: StepMasks, **fields: Any) -> None:
        request = GenerationRequest("r", Prompt((1,)), Sampling(0.0), **fields)
        sequence = MlxSequence(request, ChunkStream(lambda: None), text_output(), 9)
        vocabulary: Any = None  # there is no reasoning to read
        self.mask = SequenceMask(sequence, mask, vocabulary, frozenset(ENDS), draw_greedy, together)
        editor = LogitsEditor.of(request, (), ENDS, N_VOCAB, mask=self.mask)
        assert editor is not None
        self._edit = editor

    def step(self, favourite: str = "a") -> int:
        """The next token, of logits that have ends first and then ``favourite``."""
        logits = mx.zeros((1, N_VOCAB))
        logits[:, ord(favourite)] = 1.0
        logits[:, list(ENDS)] = 2.0
        edited = self._edit(mx.array([1]), logits)
        self.choices = np.flatnonzero(np.array(edited[0]) > -math.inf).tolist()
        return int(self.mask.draw(edited).item())


def run(row: Row, together: StepMasks, steps: int) -> list[int]:
    drawn = []
    for _ in range(steps):
        together.begin_step()
        drawn.append(row.step())
    return drawn


async def test_a_mask_sees_each_token_before_the_next_is_drawn() -> None:
    together = StepMasks()
    row = Row(await mask_of("ab(ac)?"), together)
    together.add(1, row.mask)
    assert run(row, together, 3) == [ord("a"), ord("b"), END]
    assert row.choices == [ord("a"), *ENDS]
    assert together.error(1) is None
    run(row, together, 2)  # computed ahead, and nobody wants it
    assert together.error(1) is None


async def test_a_complete_answer_ends_though_ends_are_banned() -> None:
    together = StepMasks()
    row = Row(await mask_of("a"), together, min_tokens=5, ignore_eos=True)
    together.add(1, row.mask)
    assert run(row, together, 2) == [ord("a"), END]


async def test_all_masks_of_a_step_are_told_with_the_first_but_those_that_began_in_it() -> None:
    together = StepMasks()
    rows = [Row(await mask_of("a{9}"), together) for _ in range(3)]
    for uid, row in enumerate(rows):
        together.add(uid, row.mask)
    together.begin_step()
    assert [row.step() for row in rows[:2]] == [ord("a")] * 2
    together.begin_step()
    rows[0].step()
    assert not rows[1].mask.has_drawn  # told with the first
    rows[1].step()
    rows[2].step()
    assert all(row.mask.has_drawn for row in rows)


async def test_what_the_grammar_forbids_is_an_error_of_that_sequence() -> None:
    together = StepMasks()
    row = Row(await mask_of("ab"), together)
    together.add(1, row.mask)
    run(row, together, 1)
    row.mask.draw(mx.array([[0.0] * ord("x") + [1.0]]))  # as no sampler does
    run(row, together, 1)
    error = together.error(1)
    assert isinstance(error, EngineError)
    with pytest.raises(EngineError, match="forbids"):
        raise error
    together.remove(1)
    assert together.error(1) is None
