from __future__ import annotations

from typing import Any

import pytest

from engines.errors import ModelLoadError
from engines.load_spec import LoadSpec
from engines.mlx.memory import KvCost
from engines.mlx.model import AUTO_KV_SHARE, LoadedModel, choose_sizes
from engines.sizing import LONGEST_AUTO_CONTEXT

COST = KvCost(per_token=10)
PLENTY = 10**12


def sizes(free: int = PLENTY, config: dict[str, Any] | None = None, **fields: Any) -> tuple[int, int]:
    loaded = LoadedModel(None, config or {}, None, "cpu", 0)
    return choose_sizes(LoadSpec("mlx", "m", **fields), loaded, COST, free)


def test_the_models_context_is_taken_up_to_a_bound() -> None:
    assert sizes(config={"max_position_embeddings": 2048})[0] == 2048
    assert sizes(config={"text_config": {"max_position_embeddings": 512}})[0] == 512
    assert sizes(config={"max_position_embeddings": 131072})[0] == LONGEST_AUTO_CONTEXT
    assert sizes()[0] == LONGEST_AUTO_CONTEXT
    assert sizes(context_length=20000)[0] == 20000


def test_no_more_is_budgeted_than_a_full_batch_needs() -> None:
    assert sizes(context_length=1000, max_sequences=4)[1] == COST.batch(4, 1000)


def test_a_share_of_what_is_free_is_budgeted_and_bounds_the_context() -> None:
    free = int(COST.sequence(500) / AUTO_KV_SHARE["cpu"])
    assert sizes(free) == (500, COST.sequence(500))


def test_given_sizes_are_kept() -> None:
    assert sizes(free=0, context_length=1000) == (1000, COST.sequence(1000))
    assert sizes(free=0, kv_cache_tokens=300) == (300, COST.sequence(300))
    assert sizes(context_length=200, kv_cache_tokens=300) == (200, COST.sequence(300))


def test_no_memory_for_a_single_token() -> None:
    with pytest.raises(ModelLoadError, match="smaller model"):
        sizes(free=0)
