"""Loading with vLLM: for what a model is made for, or for what the catalog says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engines.base import Resident
from engines.errors import CannotLoad
from engines.load_spec import LoadSpec
from engines.vllm.engine import VllmEngine
from engines.vllm.folder import purpose
from engines.vllm.pooling import VllmPoolingEngine


async def load(spec: LoadSpec, progress: Callable[[float], None] | None = None) -> Resident:
    """As `engines.vllm.resident.start`."""
    made_for, _ = await asyncio.to_thread(purpose, spec)
    match made_for:
        case "text":
            return await VllmEngine.load(spec, progress)
        case "embeddings":
            return await VllmPoolingEngine.load(spec, progress)
        case "rerank":
            raise CannotLoad("vLLM's engine ranks no documents yet: use llama_cpp with the model's GGUF file")
