"""The loader: from a model's name, by way of catalog, settings and machine, to a loaded engine."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from engines.abilities import Abilities, expected
from engines.base import Adapter, Resident
from engines.errors import CannotLoad, EngineError, ModelFileNotFound
from engines.lifecycle.states import LoadOptions, Retention
from engines.load_spec import LoadSpec
from engines.machine.footprint import Footprint
from engines.machine.platform import Facts
from engines.models.catalog import FOREVER
from engines.models.convert import ensure_converted
from engines.models.convert.plan import Quantizer
from engines.models.facts import describe, is_known
from engines.models.formats import ModelFormat
from engines.models.library import Library
from engines.models.model import Model, missing
from engines.models.store import stamps
from engines.progress import PhaseProgress
from engines.registry import AUTO, ENGINES, EngineRegistry
from engines.selection import EngineChoice, choose_engine

logger = logging.getLogger("engines.lifecycle")

# Of a load that has to convert the model first, so much of the progress is the conversion's.
CONVERSION_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class LoadDefaults:
    """Load settings of every model that the catalog does not set otherwise. Lengths in tokens."""

    engine: str = AUTO
    context_length: int | None = None
    kv_cache_tokens: int | None = None
    max_sequences: int = 32
    threads: int | None = None
    use_gpu: bool | None = None
    cache_prefixes: bool = True
    gpu_memory: float = 0.8
    stall_timeout: float = 60.0
    allow_special_tokens: bool = False
    deterministic: bool = True
    ngram_draft: int = 0
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
        self._studies: dict[Path, asyncio.Future[object]] = {}
        self._loaded: dict[str, object] = {}

    def retention(self, name: str) -> Retention:
        entry = self._library.find(name).entry
        keep_alive = self._defaults.keep_alive if entry.keep_alive is None else entry.keep_alive
        return Retention(pin=entry.pin, keep_alive=keep_alive)

    def estimate(self, name: str, options: LoadOptions, *, beside: bool = False) -> Footprint:
        """``beside``: an engine of the same model is loaded, and those that can share its weights do."""
        model = self._library.find(name)
        spec = self._spec(model, options)
        engine = ENGINES[spec.engine]
        self._check(spec, options)
        return engine.estimate(spec, self._facts, weights_loaded=beside and engine.shares_weights)

    def can_chat(self, model: Model) -> bool:
        """Whether there is a chat template for ``model``: its own, the catalog's, or its engine's.

        Embedding models that were made of chat models have kept theirs: it is of no use.
        """
        if model.purpose in ("embeddings", "rerank"):
            return False
        if model.file is None or model.file.has_chat_template or "chat_template" in model.entry.options:
            return True
        choice = engine_for(model, self._defaults.engine, self._facts)
        return choice.engine is not None and ENGINES[choice.engine].brings_templates

    def abilities(self, model: Model) -> Abilities:
        """What ``model`` can do once it is loaded. Cheap: a list of models asks for each."""
        choice = engine_for(model, self._defaults.engine, self._facts)
        engine = None if choice.engine is None else ENGINES[choice.engine]
        return expected(model, engine, self._defaults.context_length)

    def check_adapter(self, name: str, adapter: Adapter) -> None:
        """Raise `ModelLoadError` if the model cannot be loaded with ``adapter``; reads headers of files."""
        spec = self._spec(self._library.find(name), LoadOptions())
        ENGINES[spec.engine].check(replace(spec, adapters=(*spec.adapters, adapter)))

    def note_load(self, name: str, options: LoadOptions) -> None:
        """A load of the model begins, here or in a worker. Raises `ModelFileNotFound` and `CannotLoad`."""
        self._loaded[name] = self._settings_of(name, options)

    def is_outdated(self, name: str, options: LoadOptions) -> bool:
        """Whether the model, which is loaded, would be loaded otherwise now: its entry in the catalog or its
        file changed, or ``options`` are others. Raises as `note_load`."""
        return name in self._loaded and self._loaded[name] != self._settings_of(name, options)

    def _settings_of(self, name: str, options: LoadOptions) -> object:
        """All that a load of the model depends on now, its files included, to be compared."""
        model = self._library.find(name)
        spec = self._spec(model, options)
        return spec, None if model.file is None else stamps(model.file)

    def can_estimate(self, name: str, options: LoadOptions) -> bool:
        path = self._file_of(name)
        return path is None or is_known(path)

    async def study(self, name: str, options: LoadOptions) -> None:
        """Read the headers of the model's files, on another thread; once for all who want that now."""
        path = self._file_of(name)
        if path is None:
            return
        study = self._studies.get(path)
        if study is None:
            study = self._studies[path] = asyncio.ensure_future(asyncio.to_thread(describe, path))
            study.add_done_callback(lambda _: self._studies.pop(path))
            study.add_done_callback(lambda done: done.cancelled() or done.exception())  # `estimate` tells it
        await asyncio.wait((study,))

    def _file_of(self, name: str) -> Path | None:
        """None for a model that has no file, or that does not exist."""
        model = self._library.get(name)
        return None if model is None or model.file is None or model.file.format == "none" else model.file.path

    async def load(
        self, name: str, options: LoadOptions, report: PhaseProgress, *, threads: int | None = None
    ) -> Resident:
        """``threads``: unless the settings or the catalog say how many."""
        model = self._library.find(name)
        spec = self._spec(model, options)
        if spec.threads is None:
            spec = replace(spec, threads=threads)
        loading = partial(report, "loading")
        quantizer = ENGINES[spec.engine].quantizer
        if spec.quantization is not None and quantizer is not None:
            spec = await self._convert(spec, quantizer, report)
            loading = partial(_rest_of, report)
        engine = await self._registry.load(spec, loading)
        await _warn_of_context(spec)
        return engine

    def measured(self, name: str, engine: Resident, *, beside: bool = False) -> Footprint | None:
        info = engine.info
        # What stays when an engine that shares its weights sleeps are the weights.
        descriptor = ENGINES.get(info.engine)
        shared = beside and descriptor is not None and descriptor.shares_weights
        size = info.memory - (info.memory_asleep if shared else 0)
        if not size:
            return None
        on_gpu = "cpu" not in engine.info.devices and not self._facts.metal
        return Footprint(gpu=size) if on_gpu else Footprint(ram=size)

    def _spec(self, model: Model, options: LoadOptions) -> LoadSpec:
        """Raises `ModelFileNotFound` if the model is not on disk, `CannotLoad` if no engine can load it."""
        file, entry, defaults = model.file, model.entry, self._defaults
        if file is None:
            raise ModelFileNotFound(missing(model))
        choice = engine_for(model, defaults.engine, self._facts, wish=options.engine)
        if choice.engine is None:
            raise CannotLoad(f"no engine can load {model.name} here: {'; '.join(choice.reasons)}")
        return LoadSpec(
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
            adapters=self._library.adapters.of(model),
            stall_timeout=defaults.stall_timeout,
            allow_special_tokens=defaults.allow_special_tokens,
            deterministic=defaults.deterministic,
            answer_format=entry.answer_format,
            pooling=entry.pooling,
            matryoshka=entry.matryoshka or bool(entry.dimensions),
            dimensions=entry.dimensions,
            rerank_template=entry.rerank_template,
            projector=file.projector,
            ngram_draft=defaults.ngram_draft if entry.ngram_draft is None else entry.ngram_draft,
            options=entry.options,
        )

    def _check(self, spec: LoadSpec, options: LoadOptions) -> None:
        """Raise `ModelLoadError` if no load can succeed with these settings: nobody is to make way for it."""
        engine = ENGINES[spec.engine]
        engine.check(spec)
        if spec.path is None or not engine.formats:
            return
        if spec.quantization is not None and engine.quantizer is not None:
            engine.quantizer.plan(spec.path, spec.quantization, self._converted)
        longest = describe(spec.path).context_length
        if options.context_length is not None and longest and options.context_length > longest:
            raise CannotLoad(
                f"{spec.name} has a context of {longest:,} tokens, not of {options.context_length:,}: ask "
                "for that many at most"
            )

    async def _convert(self, spec: LoadSpec, quantizer: Quantizer, report: PhaseProgress) -> LoadSpec:
        assert spec.quantization is not None
        assert spec.path is not None
        converted = await ensure_converted(
            spec.path,
            spec.quantization,
            quantizer,
            fallback_dir=self._converted,
            on_progress=lambda fraction: report("converting", CONVERSION_SHARE * fraction),
        )
        return replace(spec, path=converted.path, quantization=None)


async def _warn_of_context(spec: LoadSpec) -> None:
    """Say that the context is longer than the model was trained for."""
    if spec.path is None or spec.context_length is None:
        return
    try:
        trained = (await asyncio.to_thread(describe, spec.path)).context_length
    except EngineError:  # the engine could read it nevertheless
        return
    if trained and spec.context_length > trained:
        logger.warning(
            "model %s was trained for %d tokens: with CONTEXT_LENGTH (or context_length) at %d, what it "
            "answers beyond those is of no use",
            spec.name,
            trained,
            spec.context_length,
        )


def engine_for(model: Model, default: str, facts: Facts, wish: str | None = None) -> EngineChoice:
    """The engine that runs ``model``: what ``wish`` says, else the catalog, else ``default``."""
    listed = model.entry.engine
    requested = wish or (default if listed == AUTO else listed)
    format: ModelFormat | None = None
    if model.file is not None and model.file.format != "none":
        format = model.file.format
    return choose_engine(facts, requested, format)


def _rest_of(report: PhaseProgress, fraction: float) -> None:
    report("loading", CONVERSION_SHARE + (1 - CONVERSION_SHARE) * fraction)
