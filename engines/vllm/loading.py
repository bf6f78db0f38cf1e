"""Loading with vLLM: for what a model is made for, or for what the catalog says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engines.base import Resident
from engines.load_spec import LoadSpec
from engines.vllm.engine import VllmEngine
from engines.vllm.folder import check_ranks, pools
from engines.vllm.pooling import VllmPoolingEngine


async def load(spec: LoadSpec, progress: Callable[[float], None] | None = None) -> Resident:
    """As `engines.vllm.resident.start`."""
    if await asyncio.to_thread(_pools, spec):
        return await VllmPoolingEngine.load(spec, progress)
    return await VllmEngine.load(spec, progress)


def _pools(spec: LoadSpec) -> bool:
    check_ranks(spec)
    return pools(spec)
