from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from engines.mlx.memory import GROWTH_STEP, KvCost, kv_cost


def layer(nbytes: int, **fields: Any) -> Any:
    return SimpleNamespace(nbytes=nbytes, **fields)


def keys(tokens: int) -> Any:
    return SimpleNamespace(shape=(1, 2, tokens, 16))


def test_layers_are_told_apart() -> None:
    plain, window = layer(2560, keys=keys(256)), layer(512, keys=keys(256), max_size=512)
    both = layer(0, caches=(plain, layer(99)))
    assert kv_cost([plain, window, both]) == KvCost(per_token=20, windows=((2, 512),), fixed=99)


def test_a_sequence_costs_its_tokens_and_the_room_to_grow() -> None:
    cost = KvCost(per_token=10, windows=((1, 300),), fixed=7)
    assert cost.sequence(0) == 10 * GROWTH_STEP + GROWTH_STEP + 7
    assert cost.sequence(1000) == 10 * (1000 + GROWTH_STEP) + 300 + 7
    assert cost.batch(3, 1000) == 3 * cost.sequence(1000)


def test_the_longest_that_fits() -> None:
    cost = KvCost(per_token=10)
    assert cost.most_tokens(cost.sequence(100), limit=8192) == 100
    assert cost.most_tokens(cost.sequence(100) - 1, limit=8192) == 99
    assert cost.most_tokens(10**9, limit=8192) == 8192
    assert cost.most_tokens(0, limit=8192) == -1
