"""Worker launcher: starts workers with what they need of this server's settings."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict

from app.settings import Settings
from balancer.instances import Instance, Instances, device_of
from balancer.proxy.client import ProxyClient
from balancer.workers.protocol import WorkerSpec
from balancer.workers.worker import Worker
from engines.lifecycle.states import LoadOptions
from engines.models.library import Library
from engines.progress import PhaseProgress

# Settings that a worker has from its parent.
_INHERITED = {
    "inference_engine",
    "device_type",
    "max_cpu_threads",
    "max_gpu_memory",
    "context_length",
    "kv_cache_tokens",
    "max_sequences",
    "enable_caching",
    "allow_special_tokens",
    "deterministic",
    "ngram_draft",
    "strict_requests",
    "stall_timeout",
    "shutdown_grace",
    "log_level",
}
# Queues, memory and slow clients are the parent's to bound.
_FIXED = {
    "max_concurrent_requests": 100_000,
    "max_queued_requests": 100_000,
    "max_memory": "1.0",
    # With what the parent fetched for a request in it.
    "max_request_bytes": 2**30,
    "media_urls": "none",
    "receive_timeout": 86_400.0,
    "send_timeout": 86_400.0,
}


class WorkerLauncher:
    """Starts the worker of an instance. ``proxy`` sends its probes.

    ``on_down`` gets the key of an instance whose process ended or hangs.
    """

    def __init__(
        self,
        settings: Settings,
        library: Library,
        instances: Instances,
        proxy: ProxyClient,
        on_down: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._library = library
        self._instances = instances
        self._proxy = proxy
        self._on_down = on_down
        # The children accept nobody else.
        self._key = secrets.token_urlsafe(32)
        self._ports: dict[str, int] = {}
        self._threads: dict[str, int] = {}

    async def __call__(self, instance: Instance, options: LoadOptions, report: PhaseProgress) -> Worker:
        settings, others = self._settings, self._instances.keys() - {instance.key}
        process = await Worker.start(
            self._spec(instance, options),
            instance.id,
            proxy=self._proxy,
            report=report,
            interval=settings.health_check_interval,
            grace=settings.shutdown_grace,
            on_down=lambda: self._on_down(instance.key),
            taken={port for key, port in self._ports.items() if key in others},
        )
        self._ports[instance.key] = process.port
        threads = process.info.details.get("threads")
        if isinstance(threads, int):
            self._threads[instance.model] = threads
        return process

    def _spec(self, instance: Instance, options: LoadOptions) -> WorkerSpec:
        settings = self._settings
        file = self._library.find(instance.model).file
        devices = device_of(instance.number, settings.instance_devices)
        return WorkerSpec(
            model=instance.model,
            path=None if file is None or file.format == "none" else str(file.path.resolve()),
            port=settings.instance_port + instance.number,
            key=self._key,
            settings=self._settings_of(instance),
            options=asdict(options),
            adapters=[each.model_dump() for each in self._library.adapters.added_to(instance.model)],
            environment={} if devices is None else {"CUDA_VISIBLE_DEVICES": devices},
        )

    def _settings_of(self, instance: Instance) -> dict[str, object]:
        settings = self._settings
        own = settings.model_dump(mode="json", include=_INHERITED) | _FIXED
        own["model_base_path"] = str(settings.model_base_path.resolve())
        # Measuring how many threads are best takes longer than the rest of a start: once is enough.
        threads = self._instances.threads(instance.key) or self._threads.get(instance.model)
        if settings.max_cpu_threads == "auto" and threads is not None:
            own["max_cpu_threads"] = threads
        return own
