"""The composition root: what the server is made of, and how it starts and stops."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from app.settings import Settings
from app.telemetry.inference import InferenceRecord
from app.telemetry.metrics import Metrics
from balancer.balancer import Balancer, Limits
from balancer.errors import UnknownModel
from balancer.local import LocalBackend
from engines.errors import ModelLoadError
from engines.platform import choose_engine, detect
from engines.registry import EngineRegistry, LoadSpec
from engines.store import ModelFile, resolve


class House:
    """Owns the balancer, the engines behind it and the counts. One for each app."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started_at = time.monotonic()
        self.created = int(time.time())
        self.balancer = Balancer(
            Limits(
                concurrent=settings.max_concurrent_requests,
                queued=settings.max_queued_requests,
                queue_timeout=settings.queue_timeout,
                load_timeout=settings.load_timeout,
            )
        )
        self.metrics = Metrics(self.balancer.statuses, lambda: self.balancer.queue_depth)
        self.model = served_model(settings)
        self.backend = self._backend(EngineRegistry())
        self.balancer.add(self.backend)

    async def start(self) -> None:
        """Begin to load; requests wait for the model meanwhile."""
        self.backend.start()

    async def stop(self) -> None:
        await self.backend.stop()

    def canonical(self, model: str) -> str:
        """The name behind ``model``, which may be an alias. Raises `UnknownModel`."""
        if self.model.answers_to(model):
            return self.model.name
        raise UnknownModel(f"there is no model {model!r} here: this server has {self.model.name}")

    def record(self, model: str, endpoint: str, request_id: str) -> InferenceRecord:
        """Start measuring a request."""
        return InferenceRecord(
            self.metrics.for_model(model), model=model, endpoint=endpoint, request_id=request_id
        )

    def _backend(self, registry: EngineRegistry) -> LocalBackend:
        return LocalBackend(
            f"{self.model.name}/0",
            self.model.name,
            partial(registry.load, load_spec(self.settings, self.model)),
            health_interval=self.settings.health_check_interval,
            on_change=self.balancer.changed,
        )


def served_model(settings: Settings) -> ModelFile:
    """The model that the settings name. Raises `ModelFileNotFound`."""
    if settings.inference_engine == "fake":
        name = "fake" if settings.default_model == "auto" else settings.default_model
        return ModelFile(name, Path(), "none", 0, source="none")
    return resolve(settings.default_model, settings.model_base_path)


def load_spec(settings: Settings, model: ModelFile) -> LoadSpec:
    """How the settings want ``model`` loaded. Raises `ModelLoadError` if no engine can run here."""
    choice = choose_engine(detect(), settings.inference_engine)
    if choice.engine is None:
        raise ModelLoadError("; ".join(choice.reasons))
    return LoadSpec(
        engine=choice.engine,
        name=model.name,
        path=model.path,
        context_length=_given(settings.context_length),
        kv_cache_tokens=_given(settings.kv_cache_tokens),
        max_sequences=settings.max_sequences,
        threads=_given(settings.max_cpu_threads),
        use_gpu=None if settings.device_type == "auto" else settings.device_type != "cpu",
        cache_prefixes=settings.enable_caching,
    )


def _given(value: int | str) -> int | None:
    """None for "auto"."""
    return value if isinstance(value, int) else None
