from __future__ import annotations

from typing import Any

import mlx.core as mx

from engines.mlx.prefix_cache import MlxPrefixCache

BIG = 10**9


def kv(tokens: list[int]) -> list[Any]:
    """One layer's cache with each token's id as its keys and values."""
    from mlx_lm.models.cache import KVCache

    cache = KVCache()
    values = mx.array(tokens, dtype=mx.float32).reshape(1, 1, -1, 1)
    cache.keys, cache.values, cache.offset = values, values, len(tokens)
    return [cache]


def state(tokens: list[int]) -> list[Any]:
    """A recurrent layer: it cannot be cut."""
    from mlx_lm.models.cache import ArraysCache

    cache = ArraysCache(1)
    cache[0] = mx.array(tokens, dtype=mx.float32)
    return [cache]


def held(caches: list[Any] | None) -> list[float]:
    assert caches is not None
    keys, _ = caches[0].keys_and_values()
    values: list[float] = keys.flatten().tolist()
    return values


def test_the_longest_common_prefix_is_taken_and_one_token_left() -> None:
    cache = MlxPrefixCache()
    cache.put([1, 2, 3, 4], kv([1, 2, 3, 4]), BIG)
    cache.put([1, 9], kv([1, 9]), BIG)
    caches, length = cache.take([1, 2, 3, 7, 8])
    assert (held(caches), length) == ([1, 2, 3], 3)
    caches, length = cache.take([1, 2, 3, 4])
    assert (held(caches), length) == ([1, 2, 3], 3)
    caches, length = cache.take([1, 2, 3, 4, 5])
    assert (held(caches), length) == ([1, 2, 3, 4], 4)
    assert cache.take([5, 6]) == (None, 0)
    assert cache.take([1]) == (None, 0)


def test_what_cannot_be_cut_is_reused_whole_or_not_at_all() -> None:
    cache = MlxPrefixCache()
    cache.put([1, 2, 3], state([1, 2, 3]), BIG)
    assert cache.take([1, 2, 9]) == (None, 0)
    assert cache.take([1, 2, 3]) == (None, 0)
    assert cache.take([1, 2, 3, 4])[1] == 3


def test_an_entry_that_another_covers_is_not_kept() -> None:
    cache = MlxPrefixCache()
    cache.put([1, 2], kv([1, 2]), BIG)
    cache.put([1, 2, 3], kv([1, 2, 3]), BIG)
    assert len(cache) == 1
    cache.put([1, 2], kv([1, 2]), BIG)
    assert len(cache) == 1
    assert cache.take([1, 2, 3, 4])[1] == 3
    assert cache.nbytes == kv([1, 2, 3])[0].nbytes


def test_states_of_different_length_are_all_kept() -> None:
    cache = MlxPrefixCache()
    for tokens in ([1, 2], [1, 2, 3], [1, 2]):
        cache.put(tokens, state(tokens), BIG)
    assert len(cache) == 2
    assert cache.take([1, 2, 9])[1] == 2


def test_the_least_recently_used_goes_first() -> None:
    cache = MlxPrefixCache()
    one = kv([1, 1])[0].nbytes
    cache.put([1, 1], kv([1, 1]), 2 * one)
    cache.put([2, 2], kv([2, 2]), 2 * one)
    cache.take([1, 1, 5])
    cache.put([3, 3], kv([3, 3]), 2 * one)
    assert cache.take([2, 2, 5]) == (None, 0)
    assert cache.take([1, 1, 5])[1] == 2
    assert cache.nbytes == 2 * one
    cache.shrink(0)
    assert (len(cache), cache.nbytes) == (0, 0)


def test_what_is_larger_than_the_limit_is_not_kept() -> None:
    cache = MlxPrefixCache()
    cache.put([1, 1], kv([1, 1]), 1)
    assert (len(cache), cache.nbytes) == (0, 0)


def test_what_was_taken_can_be_trimmed_without_harm() -> None:
    cache = MlxPrefixCache()
    cache.put([1, 2, 3, 4], kv([1, 2, 3, 4]), BIG)
    caches, _ = cache.take([1, 2, 3, 4, 5])
    assert caches is not None
    caches[0].trim(3)
    assert held(cache.take([1, 2, 3, 4, 5])[0]) == [1, 2, 3, 4]
