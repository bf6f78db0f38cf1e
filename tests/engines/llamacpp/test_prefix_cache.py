"""Cached prefixes over a KV cache without native memory."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engines.base import GenerationRequest, Prompt, Sampling
from engines.llamacpp.kv_cache import PooledKvCache, State
from engines.llamacpp.prefix_cache import WORTH_WAITING_FOR, LlamaPrefixCache, SharedPrefix, common_length
from engines.llamacpp.sampler import Sampler
from engines.llamacpp.sequence import LlamaSequence
from engines.stream import ChunkStream
from support.output import text_output

CELLS = 100


class NoMemory:
    def copy(self, source: int, target: int, length: int) -> None: ...

    def truncate(self, slot: int, length: int) -> None: ...

    def save(self, slot: int) -> State:
        return np.zeros(1, dtype=np.uint8)

    def load(self, slot: int, state: State) -> bool:
        return True

    def clear(self) -> None: ...


@pytest.fixture
def kv() -> PooledKvCache:
    return PooledKvCache(NoMemory(), cells=CELLS, slots=8)


def sequence(tokens: list[int]) -> LlamaSequence:
    request = GenerationRequest("r", Prompt(tuple(tokens)), Sampling(temperature=0))
    sampler = Sampler(request, np.array([0], dtype=np.int32), 50_000)
    return LlamaSequence(request, ChunkStream(lambda: None), text_output(), 10, sampler)


def fill(cache: LlamaPrefixCache, kv: PooledKvCache, tokens: list[int]) -> int:
    """Compute ``tokens`` in a slot and leave them there."""
    prefix = cache.longest(sequence(tokens), [])
    slot = cache.open(prefix, []).slot
    kv.grow(slot, len(tokens) - prefix.length)
    cache.keep(slot, tokens)
    return slot


def test_the_longest_prefix_is_found_but_for_the_last_token(kv: PooledKvCache) -> None:
    cache = LlamaPrefixCache(kv)
    short, long = fill(cache, kv, [1, 2, 9]), fill(cache, kv, [1, 2, 3, 4])
    assert cache.longest(sequence([1, 2, 3, 4, 5]), []) == SharedPrefix(long, 4)
    assert cache.longest(sequence([1, 2, 3, 4]), []) == SharedPrefix(long, 3)
    assert cache.longest(sequence([1, 2, 9, 9]), []) == SharedPrefix(short, 3)
    assert cache.longest(sequence([5]), []) == SharedPrefix()


def test_a_prefix_of_what_is_kept_goes(kv: PooledKvCache) -> None:
    cache = LlamaPrefixCache(kv)
    fill(cache, kv, [1, 2, 3])
    fill(cache, kv, [1, 2, 3, 4, 5])
    assert CELLS - kv.free_cells == 5


def test_room_is_made_from_the_least_recently_used(kv: PooledKvCache) -> None:
    cache = LlamaPrefixCache(kv)
    fill(cache, kv, list(range(40)))
    used = fill(cache, kv, list(range(100, 140)))
    cache.make_room(20)
    assert kv.free_cells == 20  # enough as it was
    cache.make_room(50)
    assert kv.free_cells == 60
    assert cache.longest(sequence([100, 101, 102]), []).slot == used
    cache.make_room(CELLS + 1)
    assert kv.free_cells == CELLS


def test_nothing_is_kept_or_found_unless_enabled(kv: PooledKvCache) -> None:
    cache = LlamaPrefixCache(kv, enabled=False)
    fill(cache, kv, [1, 2, 3])
    assert kv.free_cells == CELLS
    assert cache.longest(sequence([1, 2, 3]), []) == SharedPrefix()


def test_a_prefill_is_worth_waiting_for_if_it_saves_enough(kv: PooledKvCache) -> None:
    cache = LlamaPrefixCache(kv)
    running, waiting = sequence(list(range(60))), sequence([*range(50), 99])
    running.slot, running.computed = cache.open(SharedPrefix(), []), 10
    computed = cache.longest(waiting, [running])
    assert computed == SharedPrefix(running.slot, 10)
    assert cache.worth_waiting_for(waiting, computed, [running]) == (running, 50)
    running.computed = 50 - WORTH_WAITING_FOR + 1
    assert cache.worth_waiting_for(waiting, computed, [running]) is None
    assert waiting.waits_for is None  # a question changes nothing


def test_common_length() -> None:
    assert common_length([], [1]) == 0
    assert common_length([1, 2, 3], [1, 2, 3]) == 3
    assert common_length([1, 2, 3, 4], [1, 2, 9, 4]) == 2
    rng = random.Random(1)
    for _ in range(200):
        a = [rng.randint(0, 1) for _ in range(rng.randint(0, 12))]
        b = [rng.randint(0, 1) for _ in range(rng.randint(0, 12))]
        expected = next(
            (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
        )
        assert common_length(a, b) == expected
