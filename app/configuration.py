"""The models, defaults and limits that the settings ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app import default_model
from app.body_memory import BodyMemory
from app.database.database import Database
from app.media.fetching import MediaFetcher
from app.media.loading import MediaLoader
from app.response_store.kept import KeptResponses
from app.response_store.recent import RecentResponses
from app.response_store.store import ResponseStore
from app.settings import Settings, forward_proxies
from engines import selection
from engines.lifecycle.admission import ModelLimits
from engines.lifecycle.loader import LoadDefaults, ModelLoader
from engines.lifecycle.states import LoadOptions
from engines.machine import memory, platform
from engines.models.catalog import AdapterEntry, parse_duration
from engines.models.library import Library
from engines.models.model import Model
from engines.registry import EngineRegistry, needs_file

CATALOG = "models.yaml"


@dataclass(frozen=True, slots=True)
class WorkerModel:
    """The one model that a worker serves, at ``path`` if no catalog has it, with further ``adapters``."""

    model: str
    path: str | None
    options: LoadOptions
    adapters: Sequence[AdapterEntry] = ()


def open_library(settings: Settings) -> Library:
    """The models there are; what is wrong with the catalog, its `catalog_error` says."""
    base = settings.model_base_path
    return Library(base, base / CATALOG)


def first_model(library: Library, settings: Settings) -> Model:
    """The model that is loaded at the start. Raises `ModelFileNotFound` or `ModelLoadError`."""
    if not needs_file(settings.inference_engine):
        wanted = settings.default_model
        return library.add_without_file(settings.inference_engine if wanted == "auto" else wanted)
    if settings.default_model != default_model.AUTO:
        return library.named(settings.default_model)
    facts = selection.detect()
    loader = model_loader(library, settings, facts)
    return default_model.choose(library, loader, manager_limits(settings, facts).budget)


def model_loader(library: Library, settings: Settings, facts: platform.Facts) -> ModelLoader:
    return ModelLoader(
        library, EngineRegistry(), load_defaults(settings), facts, converted=settings.model_base_path
    )


def response_store(settings: Settings, database: Database) -> ResponseStore:
    """The store of responses; one that keeps none if they are not wanted."""
    count, age = settings.stored_responses, settings.stored_responses_days * 86400.0
    recent = RecentResponses(count, settings.stored_responses_bytes, age)
    kept = KeptResponses(database, count, age, settings.stored_responses_bytes) if count else None
    return ResponseStore(recent, kept)


def worker_library_model(library: Library, settings: Settings, wanted: WorkerModel) -> Model:
    """Raises `ModelFileNotFound` or `ModelLoadError`."""
    for adapter in wanted.adapters:
        library.adapters.add(wanted.model, adapter)
    if not needs_file(settings.inference_engine):
        return library.add_without_file(wanted.model)
    if wanted.path is None:
        return library.find(wanted.model)
    return library.put(wanted.model, Path(wanted.path))


def media_loader(settings: Settings) -> MediaLoader:
    fetcher = MediaFetcher(settings.media_urls, forward_proxies())
    return MediaLoader(fetcher, BodyMemory.for_bodies_of(settings.max_request_bytes))


def load_defaults(settings: Settings) -> LoadDefaults:
    return LoadDefaults(
        engine=settings.inference_engine,
        context_length=_given(settings.context_length),
        kv_cache_tokens=_given(settings.kv_cache_tokens),
        max_sequences=settings.max_sequences,
        threads=_given(settings.max_cpu_threads),
        use_gpu=None if settings.device_type == "auto" else settings.device_type != "cpu",
        cache_prefixes=settings.enable_caching,
        gpu_memory=settings.max_gpu_memory,
        stall_timeout=settings.stall_timeout,
        allow_special_tokens=settings.allow_special_tokens,
        deterministic=settings.deterministic,
        ngram_draft=settings.ngram_draft,
        keep_alive=parse_duration(settings.keep_alive),
    )


def manager_limits(settings: Settings, facts: platform.Facts) -> ModelLimits:
    single = settings.inference_mode == "single"
    return ModelLimits(
        max_models=1 if single else settings.max_concurrent_models,
        budget=memory.budget(facts, max_memory=settings.max_memory, gpu_share=settings.max_gpu_memory),
        # Looking costs nothing for engines in this process, so look often.
        interval=min(settings.health_check_interval, 1.0),
    )


def _given(value: int | str) -> int | None:
    """None for "auto"."""
    return value if isinstance(value, int) else None
