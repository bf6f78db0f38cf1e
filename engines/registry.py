"""Makes engines. The optional packages behind them are imported only when one is asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engines.base import Engine
from engines.errors import ModelLoadError
from engines.load_spec import LoadSpec
from engines.progress import Progress

if TYPE_CHECKING:
    from engines.llamacpp.model import ModelCache


class EngineRegistry:
    """Owns what engines of one process share, such as weights loaded once for several slots."""

    def __init__(self) -> None:
        self._llama_models: ModelCache | None = None
        # vLLM is set up through the process's environment while it loads.
        self._vllm_loads = asyncio.Lock()

    async def load(self, spec: LoadSpec, progress: Progress | None = None) -> Engine:
        """Load a model; ``progress`` gets 0..1, from any thread. Raises `ModelLoadError`."""
        if spec.engine == "fake":
            return self._fake(spec)
        if spec.engine == "llama_cpp":
            return await self._llama_cpp(spec, progress)
        if spec.engine == "mlx":
            return await self._mlx(spec, progress)
        if spec.engine == "vllm":
            return await self._vllm(spec, progress)
        raise ModelLoadError(f"there is no engine {spec.engine!r}")

    def _fake(self, spec: LoadSpec) -> Engine:
        from engines.fake import FakeEngine

        return FakeEngine(spec.name, context_length=spec.context_length or 8192)

    async def _llama_cpp(self, spec: LoadSpec, progress: Progress | None) -> Engine:
        try:
            from engines.llamacpp.engine import LlamaEngine, LlamaOptions
            from engines.llamacpp.model import ModelCache
        except ImportError as error:
            raise ModelLoadError(
                f"llama-cpp-python cannot be imported ({error}): `pip install llama-cpp-python` installs it"
            ) from error
        if spec.path is None:
            raise ModelLoadError("llama.cpp needs a model file")
        self._llama_models = self._llama_models or ModelCache()
        options = LlamaOptions(
            name=spec.name,
            path=spec.path,
            context_length=spec.context_length,
            kv_cells=spec.kv_cache_tokens,
            max_sequences=spec.max_sequences,
            threads=spec.threads,
            offload=spec.use_gpu,
            cache_prefixes=spec.cache_prefixes,
            stall_timeout=spec.stall_timeout,
        )
        return await LlamaEngine.load(options, self._llama_models, progress)

    async def _mlx(self, spec: LoadSpec, progress: Progress | None) -> Engine:
        try:
            from engines.mlx.engine import MlxEngine
        except ImportError as error:
            raise ModelLoadError(
                f"mlx-lm cannot be imported ({error}): `pip install 'enginehouse[mlx]'` installs it"
            ) from error
        return await MlxEngine.load(spec, progress)

    async def _vllm(self, spec: LoadSpec, progress: Progress | None) -> Engine:
        try:
            from engines.vllm.engine import VllmEngine
        except ImportError as error:
            raise ModelLoadError(
                f"vLLM cannot be imported ({error}): `pip install 'enginehouse[vllm]'` installs it; "
                "for a machine without a GPU see the README"
            ) from error
        async with self._vllm_loads:
            return await VllmEngine.load(spec, progress)
