"""The instances of models: their registry, and the model manager's loader over them."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, KeysView
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from engines.base import Resident
from engines.lifecycle.loader import ModelLoader
from engines.lifecycle.states import LoadOptions, Retention
from engines.llamacpp.threads import usable_cores
from engines.machine.footprint import Footprint
from engines.models.catalog import FOREVER
from engines.progress import PhaseProgress

# Instances of one model, whoever asks for them: what CLUSTER_INSTANCES allows.
MOST_INSTANCES = 100


class InstanceKind(StrEnum):
    LOCAL = "local"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Instance:
    """One place where a model runs: an engine of this process, or a worker.

    ``number`` counts the instances of all models. The first instance of a model leads; the others are its
    replicas.
    """

    number: int
    model: str
    kind: InstanceKind
    is_replica: bool

    @property
    def id(self) -> str:
        """The instance's name for operators, and as a backend."""
        return f"instance_{self.number}"

    @property
    def key(self) -> str:
        """The instance's name for the model manager: for the first one, the model's."""
        return f"{self.model} ({self.id})" if self.is_replica else self.model


@dataclass(frozen=True, slots=True)
class Deployment:
    """The instances that a model gets unless somebody scales it. ``weight`` is each instance's."""

    instances: int = 1
    kind: InstanceKind = InstanceKind.LOCAL
    weight: float = 1.0


class Instances:
    """The registry of instances. Each gets the smallest free number: ports and devices are used again."""

    def __init__(self) -> None:
        self._by_key: dict[str, Instance] = {}

    def __iter__(self) -> Iterator[Instance]:
        return iter(tuple(self._by_key.values()))

    def keys(self) -> KeysView[str]:
        return self._by_key.keys()

    def get(self, key: str) -> Instance | None:
        return self._by_key.get(key)

    def of(self, model: str) -> list[Instance]:
        """The instances of ``model``, the oldest first."""
        return [instance for instance in self._by_key.values() if instance.model == model]

    def threads(self, key: str) -> int | None:
        """How many threads an instance may compute with: an equal part of the cores where several engines
        would compute at once, as those threads spin. None where it is alone."""
        instance = self._by_key.get(key)
        count = 1 if instance is None else len(self.of(instance.model))
        return None if count == 1 else max(1, usable_cores() // count)

    def add(self, model: str, kind: InstanceKind) -> Instance:
        taken = {instance.number for instance in self}
        number = next(n for n in range(len(taken) + 1) if n not in taken)
        instance = Instance(number, model, kind, is_replica=model in self._by_key)
        self._by_key[instance.key] = instance
        return instance

    def remove(self, instance: Instance) -> None:
        del self._by_key[instance.key]


class StartWorker(Protocol):
    """Starts a child process that serves an instance's model."""

    def __call__(
        self, instance: Instance, options: LoadOptions, report: PhaseProgress
    ) -> Awaitable[Resident]: ...


class InstanceLoader:
    """The model manager's loader: it knows instances where `ModelLoader` knows models."""

    def __init__(self, models: ModelLoader, instances: Instances, start_worker: StartWorker) -> None:
        self._models = models
        self._instances = instances
        self._start_process = start_worker

    def retention(self, name: str) -> Retention:
        instance = self._instances.get(name)
        if instance is None or not instance.is_replica:
            return self._models.retention(name)
        return Retention(keep_alive=FOREVER, replica_of=instance.model)

    def estimate(self, name: str, options: LoadOptions) -> Footprint:
        return self._models.estimate(self._model(name), options, beside=self._shares(name))

    def can_estimate(self, name: str, options: LoadOptions) -> bool:
        return self._models.can_estimate(self._model(name), options)

    async def study(self, name: str, options: LoadOptions) -> None:
        await self._models.study(self._model(name), options)

    async def load(self, name: str, options: LoadOptions, report: PhaseProgress) -> Resident:
        instance = self._instances.get(name)
        self._models.note_load(self._model(name), options)
        if instance is not None and instance.kind is InstanceKind.PROCESS:
            return await self._start_process(instance, options, report)
        threads = self._instances.threads(name)
        return await self._models.load(self._model(name), options, report, threads=threads)

    def measured(self, name: str, engine: Resident) -> Footprint | None:
        return self._models.measured(name, engine, beside=self._shares(name))

    def _model(self, name: str) -> str:
        instance = self._instances.get(name)
        return name if instance is None else instance.model

    def _shares(self, name: str) -> bool:
        instance = self._instances.get(name)
        return instance is not None and instance.is_replica and instance.kind is InstanceKind.LOCAL


def device_of(number: int, groups: str) -> str | None:
    """The GPUs, as CUDA_VISIBLE_DEVICES, that instance ``number`` gets of ``groups`` ("0;1", "0,1;2,3")."""
    parts = [part.strip() for part in groups.split(";") if part.strip()]
    return parts[number % len(parts)] if parts else None
