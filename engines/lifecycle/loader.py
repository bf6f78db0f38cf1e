"""From a model's name to a loaded engine: the catalog's wishes, the settings' defaults, the platform."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from engines.base import Engine, Resident
from engines.errors import CannotLoad, ModelFileNotFound
from engines.lifecycle.states import LoadOptions, Policy
from engines.load_spec import Adapter, LoadSpec
from engines.machine.footprint import Footprint
from engines.machine.memory import gpu_memory_total
from engines.machine.platform import EngineChoice, Facts, ModelFormat, choose_engine
from engines.models import facts as model_facts
from engines.models.catalog import FOREVER
from engines.models.library import Library, Model, missing
from engines.models.store import ModelFile
from engines.progress import PhaseProgress
from engines.registry import EngineRegistry

LONGEST_AUTO_CONTEXT = 8192
# Work space beside weights and KV cache, in bytes: a guess until the engine was loaded once.
WORK_SPACE = 64 * 2**20
# Of a load that has to convert the model first, so much of the progress is the conversion's.
CONVERSION_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class LoadDefaults:
    """What the settings say of every model; a catalog entry may say otherwise. Lengths in tokens."""

    engine: str = "auto"
    context_length: int | None = None
    kv_cache_tokens: int | None = None
    max_sequences: int = 32
    threads: int | None = None
    use_gpu: bool | None = None
    cache_prefixes: bool = True
    gpu_memory: float = 0.8
    stall_timeout: float = 60.0
    keep_alive: float = FOREVER


class ModelLoader:
    """Loads what the library lists. ``converted`` is where conversions go that cannot stay beside a model."""

    def __init__(
        self,
        library: Library,
        registry: EngineRegistry,
        defaults: LoadDefaults,
        facts: Facts,
        converted: Path,
    ) -> None:
        self._library = library
        self._registry = registry
        self._defaults = defaults
        self._facts = facts
        self._converted = converted

    def policy(self, name: str) -> Policy:
        entry = self._library.find(name).entry
        keep_alive = self._defaults.keep_alive if entry.keep_alive is None else entry.keep_alive
        return Policy(pin=entry.pin, keep_alive=keep_alive)

    def estimate(self, name: str, options: LoadOptions, *, beside: bool = False) -> Footprint:
        """``beside``: an engine of the same model is loaded, and those that can share its weights do."""
        spec, file = self._spec(self._library.find(name), options)
        if spec.engine == "fake":
            return Footprint()
        if spec.engine == "vllm" and self._on_gpu(spec):
            return Footprint(gpu=int(gpu_memory_total() * spec.gpu_memory))
        facts = model_facts.describe(file.path)
        trained = facts.context_length or LONGEST_AUTO_CONTEXT
        context = spec.context_length or min(trained, LONGEST_AUTO_CONTEXT)
        kv = (spec.kv_cache_tokens or 2 * context) * facts.kv_bytes_per_token
        weights = 0 if beside and spec.engine == "llama_cpp" else facts.weight_bytes
        return self._footprint(spec, weights + kv + WORK_SPACE)

    async def load(
        self, name: str, options: LoadOptions, report: PhaseProgress, *, threads: int | None = None
    ) -> Engine:
        """``threads``: unless the settings or the catalog say how many."""
        model = self._library.find(name)
        spec, file = self._spec(model, options)
        if spec.threads is None:
            spec = replace(spec, threads=threads)
        loading = partial(report, "loading")
        if _converts(spec):
            spec = await self._convert(spec, file, report)
            loading = partial(_rest_of, report)
        return await self._registry.load(spec, loading)

    def measured(self, name: str, engine: Resident, *, beside: bool = False) -> Footprint | None:
        info = engine.info
        # What stays when llama.cpp's engines sleep are the weights.
        size = info.memory - (info.memory_asleep if beside and info.engine == "llama_cpp" else 0)
        if not size:
            return None
        on_gpu = "cpu" not in engine.info.devices and not self._facts.metal
        return Footprint(gpu=size) if on_gpu else Footprint(ram=size)

    def _spec(self, model: Model, options: LoadOptions) -> tuple[LoadSpec, ModelFile]:
        """Raises `ModelFileNotFound` if the model is not on disk, `CannotLoad` if no engine can load it."""
        file, entry, defaults = model.file, model.entry, self._defaults
        if file is None:
            raise ModelFileNotFound(missing(model))
        choice = engine_for(model, defaults.engine, self._facts, wish=options.engine)
        if choice.engine is None:
            raise CannotLoad(f"no engine can load {model.name} here: {'; '.join(choice.reasons)}")
        spec = LoadSpec(
            engine=choice.engine,
            name=model.name,
            path=file.path,
            context_length=options.context_length or entry.context_length or defaults.context_length,
            kv_cache_tokens=entry.kv_cache_tokens or defaults.kv_cache_tokens,
            max_sequences=entry.slots or defaults.max_sequences,
            threads=entry.threads or defaults.threads,
            use_gpu=defaults.use_gpu,
            cache_prefixes=defaults.cache_prefixes,
            gpu_memory=entry.gpu_memory or defaults.gpu_memory,
            dtype=entry.dtype,
            quantization=options.quantization or entry.quantization,
            tensor_parallel=entry.tensor_parallel,
            pipeline_parallel=entry.pipeline_parallel,
            adapters=tuple(Adapter(a.name, self._library.base / a.path) for a in entry.adapters),
            stall_timeout=defaults.stall_timeout,
            options=entry.options,
        )
        return spec, file

    async def _convert(self, spec: LoadSpec, file: ModelFile, report: PhaseProgress) -> LoadSpec:
        # Imported here: most loads convert nothing.
        from engines.models.convert import ensure_converted

        assert spec.quantization is not None
        assert file.format != "none"
        converted = await ensure_converted(
            file.path,
            spec.quantization,
            file.format,
            fallback_dir=self._converted,
            on_progress=lambda fraction: report("converting", CONVERSION_SHARE * fraction),
        )
        return replace(spec, path=converted.path, quantization=None)

    def _on_gpu(self, spec: LoadSpec) -> bool:
        if spec.use_gpu is False or not self._facts.cuda:
            return False
        return spec.engine != "vllm" or not self._facts.vllm_cpu

    def _footprint(self, spec: LoadSpec, size: int) -> Footprint:
        offloads = spec.engine == "llama_cpp" and self._on_gpu(spec) and _llama_offloads()
        return Footprint(gpu=size) if offloads else Footprint(ram=size)


def engine_for(model: Model, default: str, facts: Facts, wish: str | None = None) -> EngineChoice:
    """The engine that runs ``model``: what ``wish`` says, else the catalog, else ``default``."""
    listed = model.entry.engine
    requested = wish or (default if listed == "auto" else listed)
    format: ModelFormat | None = None
    if model.file is not None and model.file.format != "none":
        format = model.file.format
    return choose_engine(facts, requested, format)


def _converts(spec: LoadSpec) -> bool:
    """vLLM quantises while it loads, or takes weights that are quantised; the others need other files."""
    return spec.quantization is not None and spec.engine in ("llama_cpp", "mlx")


def _rest_of(report: PhaseProgress, fraction: float) -> None:
    report("loading", CONVERSION_SHARE + (1 - CONVERSION_SHARE) * fraction)


def _llama_offloads() -> bool:
    """Whether llama.cpp was built for a GPU."""
    import llama_cpp.llama_cpp as lib

    return bool(lib.llama_supports_gpu_offload())
