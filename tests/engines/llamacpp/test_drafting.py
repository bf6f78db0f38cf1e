"""N-gram drafts: what is guessed, and that answers stay the same. A scripted forward pass is the model."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import reduce
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines.base import Chunk, EngineInfo, GenerationRequest, Prompt, Sampling
from engines.batching.thread import EngineThread, on_new_thread
from engines.errors import EngineError
from engines.llamacpp.context import Logits, Slice
from engines.llamacpp.drafting import MOST_ENTRIES, NgramDrafter
from engines.llamacpp.kv_cache import PooledKvCache, State
from engines.llamacpp.pacing import LlamaPacer
from engines.llamacpp.prefix_cache import LlamaPrefixCache
from engines.llamacpp.sampler import Sampler
from engines.llamacpp.scheduler import LlamaScheduler
from engines.llamacpp.sequence import LlamaSequence
from engines.llamacpp.stepper import LlamaStepper
from engines.stream import ChunkStream, merge
from engines.text.answers.output import output_of

VOCABULARY, END, MOST = 128, 0, 7
GREEDY = Sampling(temperature=0)
TEXT = list(range(20, 60))


class ScriptedPass:
    """A forward pass of a model that has learnt ``script`` by heart. It holds what each slot does, and fails
    a test that computes what does not follow."""

    batch_size, pooled = 64, True

    def __init__(self, script: Callable[[list[int]], int]) -> None:
        self.held: dict[int, list[int]] = {}
        self.sizes: list[int] = []
        self.longest = 0
        self.fails_drafts = False
        self._script = script

    def decode(self, slices: Sequence[Slice]) -> Logits:
        self.sizes.append(sum(len(piece.tokens) for piece in slices))
        if self.fails_drafts and any(piece.outputs > 1 for piece in slices):
            raise EngineError("planted")
        return np.array([row for piece in slices for row in self._compute(piece)], dtype=np.float32)

    def _compute(self, piece: Slice) -> list[Logits]:
        held = self.held.setdefault(piece.slot, [])
        assert len(held) == piece.start
        rows = []
        for token in piece.tokens:
            held.append(token)
            rows.append(np.eye(VOCABULARY, dtype=np.float32)[self._script(held)] * 10)
        self.longest = max(self.longest, len(held))
        return rows[len(rows) - piece.outputs :]

    def sample(self, chain: Any, row: int) -> int:
        raise AssertionError("all are greedy")

    def truncate(self, slot: int, length: int) -> None:
        del self.held.get(slot, [])[length:]

    def copy(self, source: int, target: int, length: int) -> None:
        self.held[target] = self.held[source][:length]

    def save(self, slot: int) -> State:
        raise AssertionError("there is no stash")

    def load(self, slot: int, state: State) -> bool:
        raise AssertionError("there is no stash")

    def clear(self) -> None:
        self.held.clear()

    def close(self) -> None:
        pass


class Engine:
    """An engine thread over a `ScriptedPass`, which answers a prompt as ``answers`` has it by its first
    token, and then ends."""

    def __init__(
        self,
        answers: dict[int, tuple[int, list[int]]],
        drafts: int = MOST,
        cells: int = 1000,
    ) -> None:
        def script(held: list[int]) -> int:
            prompt, answer = answers[held[0]]
            at = len(held) - prompt
            # What follows a wrong token is wrong, too.
            return answer[at] if 0 <= at < len(answer) and held[prompt:] == answer[:at] else END

        self.context = ScriptedPass(script)
        self.kv = PooledKvCache(self.context, cells=cells, slots=16)
        self.scheduler = LlamaScheduler(
            self.kv,
            LlamaPrefixCache(self.kv),
            max_running=4,
            batch_size=64,
            deterministic=False,
            drafts=drafts,
        )
        vocabulary: Any = SimpleNamespace(
            is_end=END.__eq__, piece=lambda token: bytes([token]), label=lambda token: bytes([token])
        )
        info = EngineInfo("llama_cpp", "m", 1000, 4, ("cpu",))
        pacer = LlamaPacer(batch_size=64)
        self.stepper = LlamaStepper(vocabulary, self.context, self.kv, self.scheduler, pacer, info)
        loop = asyncio.get_running_loop()
        self.thread = EngineThread[LlamaSequence](
            lambda _: self.stepper, loop, on_new_thread("scripted-engine")
        )
        self.thread.start()

    async def ask(self, prompt: list[int], limit: int = 500, **fields: Any) -> Chunk:
        """The answer as one chunk."""
        request = GenerationRequest("r", Prompt(tuple(prompt)), **{"sampling": GREEDY, **fields})
        stream = ChunkStream(on_close=lambda: self.thread.abort(sequence))
        sampler = Sampler(request, np.array([END], dtype=np.int32), VOCABULARY)
        drafter = NgramDrafter(len(prompt) + limit)
        sequence = LlamaSequence(
            request, stream, output_of(request, self.stepper.vocabulary), limit, sampler, drafter
        )
        self.thread.submit(sequence)
        chunks = [chunk async for chunk in stream]
        return reduce(merge, chunks)

    def close(self) -> None:
        self.thread.stop(EngineError("over"))
        assert self.thread.join(5)
        assert self.scheduler.cells_in_use == 0
        for slot, cached in self.scheduler._prefixes._cached.items():
            tokens = cached.tokens
            assert self.context.held[slot] == tokens  # what is cached is what was computed, to the last cell
            assert len(self.kv._held[slot]) == len(tokens)


async def test_a_copy_takes_few_steps_and_one_change_in_it_few_more() -> None:
    answer = [*TEXT[:20], 99, *TEXT[21:]]
    engine = Engine({1: (len(TEXT) + 1, answer)})
    said = await engine.ask([1, *TEXT])
    assert said.token_ids == tuple(answer)
    assert said.usage is not None
    assert said.usage.completion_tokens == len(answer) + 1
    assert len(engine.context.sizes) < len(answer) / 2
    assert max(engine.context.sizes[1:]) == MOST + 1
    drafts = engine.stepper.drafts
    assert len(engine.context.sizes) + drafts.accepted == len(answer) + 1
    assert drafts.accepted < drafts.drafted < len(answer) + MOST
    engine.close()


@pytest.mark.parametrize(
    ("fields", "limit", "reason", "counted"),
    [
        ({}, 17, "length", 17),
        ({"stop": (bytes(TEXT[13:15]).decode(),)}, 500, "stop", 15),
        ({"stop_token_ids": (TEXT[13],)}, 500, "stop", 14),
        ({"stop_token_ids": (TEXT[13],), "min_tokens": 20}, 500, "stop", 21),
        ({"sampling": Sampling(0.0, logit_bias=((TEXT[13], -20.0),))}, 500, "stop", 14),
    ],
    ids=["limit", "stop string", "stop token", "at least", "bias"],
)
async def test_an_answer_ends_inside_a_draft(
    fields: dict[str, Any], limit: int, reason: str, counted: int
) -> None:
    found = []
    for drafts in (0, MOST):
        engine = Engine({1: (len(TEXT) + 1, TEXT)}, drafts)
        for _ in range(2):
            said = await engine.ask([1, *TEXT], limit, **fields)
            assert said.usage is not None
            assert (said.finish_reason, said.usage.completion_tokens) == (reason, counted)
            found.append(said)
        assert (engine.stepper.drafts.accepted > 5) == bool(drafts)
        assert engine.context.longest < len(TEXT) + 1 + limit  # no cell beyond the context
        engine.close()
        assert engine.thread.stats.completion_tokens == 2 * counted
    assert found[:2] == found[2:]


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_drafted_the_answers_are_the_same(seed: int) -> None:
    """Several at once or one after the other, in a cache that is too small for all, with various ends."""
    rng = random.Random(seed)
    answers: dict[int, tuple[int, list[int]]] = {}
    asked: list[tuple[list[int], int, dict[str, Any]]] = []
    for first in range(1, 9):
        text = [rng.randrange(20, 60) for _ in range(rng.randint(5, 60))]
        answer: list[int] = []
        while len(answer) < 80:
            start = rng.randrange(len(text))
            answer += [*text[start : start + rng.randint(1, 30)], *rng.choices(range(20, 60), k=2)]
        ends: dict[str, Any] = rng.choice([{}, {"stop": (bytes(answer[50:52]).decode(),)}, {"logprobs": 1}])
        answers[first] = len(text) + 1, answer
        asked.append(([first, *text], rng.randint(1, 90), ends))
    answers[9] = len(TEXT) + 1, TEXT
    found = []
    for drafts in (0, MOST):
        engine = Engine(answers, drafts, cells=160)
        group = asyncio.gather(*(engine.ask(prompt, limit, **ends) for prompt, limit, ends in asked[:5]))
        later = [await engine.ask(prompt, limit, **ends) for prompt, limit, ends in asked[5:]]
        found.append([*await group, *later, await engine.ask([9, *TEXT])])  # at least the last one drafts
        assert bool(engine.stepper.drafts.accepted) == bool(drafts)
        engine.close()
    assert found[0] == found[1]


async def test_a_pass_that_fails_is_tried_again_without_a_draft() -> None:
    engine = Engine({1: (4, [7, 8, 9] * 20)})
    engine.context.fails_drafts = True
    said = await engine.ask([1, 7, 8, 9])
    assert said.token_ids == (7, 8, 9) * 20
    assert engine.stepper.drafts.drafted == 0
    assert max(engine.context.sizes) > 4
    engine.close()


async def test_those_that_run_beside_others_draft_nothing() -> None:
    answers = {first: (4, [7, 8, 9] * 20) for first in (1, 2)}
    engine = Engine(answers)
    await asyncio.gather(*(engine.ask([first, 7, 8, 9], 40) for first in answers))
    assert max(engine.context.sizes) <= 8
    assert engine.stepper.drafts.drafted <= MOST  # before the other one came, at most
    engine.close()


def test_a_drafter_finds_the_last_place_and_goes_on_behind_a_change() -> None:
    drafter = NgramDrafter(1000)
    tokens = [*TEXT, 5, *TEXT[:4], 6, *TEXT[:3]]
    assert drafter.draft(tokens, 1) in ([], [TEXT[3]])
    tokens += TEXT[3:20]
    assert drafter.draft(tokens, 3) == TEXT[20:23]
    tokens += [6, TEXT[21]]
    assert drafter.draft(tokens, MOST) in ([], TEXT[22:25])
    tokens += TEXT[22:30]
    assert drafter.draft(tokens, MOST)[:3] == TEXT[30:33]
    assert NgramDrafter(3).draft([1, 2], MOST) == []


def test_a_drafter_repeats_what_repeats_itself() -> None:
    drafter, tokens = NgramDrafter(100), [1, *[7, 8, 9] * 3]
    for _ in range(40):
        drafter.draft(tokens, 1)
        tokens.append(tokens[-3])
    assert drafter.draft(tokens, MOST) == [8, 9, 7, 8, 9, 7, 8]


def test_a_drafter_learns_where_nothing_repeats_itself() -> None:
    """A match each time, and never the same tokens behind it."""
    rng = random.Random(1)
    tokens = [token for _ in range(500) for token in (3, 4, 5, rng.randrange(1000), rng.randrange(1000))]
    drafter, refused = NgramDrafter(len(tokens)), 0
    for end in range(len(tokens)):
        draft = drafter.draft(tokens[:end], MOST)
        refused += sum(guess != token for guess, token in zip(draft, tokens[end:], strict=False))
    assert refused < len(tokens) / 20


def test_a_drafter_needs_bounded_memory_and_linear_time() -> None:
    tokens = [n % 50_000 for n in range(200_000)]
    drafter = NgramDrafter(len(tokens))
    assert drafter._ends.nbytes <= 4 * MOST_ENTRIES
    assert drafter.draft(tokens, MOST)[:3] == tokens[-50_000:-49_997]
    same = NgramDrafter(100_000)
    assert same.draft([9] * 100_000, MOST)[:3] == [9] * 3
