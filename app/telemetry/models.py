"""The model manager's counts, in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from engines.base import HasMetrics

if TYPE_CHECKING:
    from engines.lifecycle.manager import ModelManager
    from engines.lifecycle.states import ModelStatus

# Counters are named without their suffix: the exposition adds _total.
_COUNTERS = {
    "loads": ("enginehouse_model_loads", "Models loaded."),
    "load_failures": ("enginehouse_model_load_failures", "Loads that failed."),
    "evictions": ("enginehouse_model_evictions", "Models unloaded to make room for another."),
    "expirations": ("enginehouse_model_expirations", "Models unloaded because nobody used them."),
    "restarts": ("enginehouse_model_restarts", "Models loaded again because they made no progress."),
}
_STATE = ("enginehouse_model_state", "1 for the state that the model is in.")
_LOAD = ("enginehouse_model_load_seconds", "How long the model's last load took.")
_UNLOAD = ("enginehouse_model_unload_seconds", "How long the model's last unload took.")
_MEMORY = ("enginehouse_model_memory_bytes", "Memory of a loaded model, by device.")
_BUDGET = ("enginehouse_memory_budget_bytes", "Memory that models may take together, by device.")
_ENGINE_LABELS = ("model", "engine")


class ModelCollector(Collector):
    """Reads the manager when somebody scrapes; holds no numbers of its own."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager

    def collect(self) -> Iterator[Metric]:
        for key, (name, text) in _COUNTERS.items():
            yield CounterMetricFamily(name, text, value=self._manager.counts[key])
        yield from self._by_model()
        yield from self._of_engines()
        budget = GaugeMetricFamily(*_BUDGET, labels=["device"])
        budget.add_metric(["ram"], self._manager.limits.budget.ram)
        budget.add_metric(["gpu"], self._manager.limits.budget.gpu)
        yield budget

    def _models(self) -> list[ModelStatus]:
        """Replicas are backends, and counted as such."""
        return [status for status in self._manager.statuses() if not status.is_replica]

    def _by_model(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(*_STATE, labels=["model", "state"])
        load = GaugeMetricFamily(*_LOAD, labels=["model"])
        unload = GaugeMetricFamily(*_UNLOAD, labels=["model"])
        memory = GaugeMetricFamily(*_MEMORY, labels=["model", "device"])
        for status in self._models():
            state.add_metric([status.name, status.state], 1)
            if status.load_seconds is not None:
                load.add_metric([status.name], status.load_seconds)
            if status.unload_seconds is not None:
                unload.add_metric([status.name], status.unload_seconds)
            if status.info is not None:
                memory.add_metric([status.name, "ram"], status.held.ram)
                memory.add_metric([status.name, "gpu"], status.held.gpu)
        yield from (state, load, unload, memory)

    def _of_engines(self) -> Iterator[Metric]:
        """What engines tell of themselves, as ``enginehouse_engine_...``."""
        families: dict[str, Metric] = {}
        for status in self._models():
            engine = self._manager.resident(status.name)
            labels = [status.name, engine.info.engine if engine else ""]
            for name, value in _figures(engine).items():
                family = families.get(name) or families.setdefault(name, _engine_family(name))
                family.add_sample(
                    f"enginehouse_engine_{name}", dict(zip(_ENGINE_LABELS, labels, strict=True)), value
                )
        yield from families.values()


def _figures(engine: object) -> Mapping[str, float]:
    return engine.metrics() if isinstance(engine, HasMetrics) else {}


def _engine_family(name: str) -> Metric:
    kind = "counter" if name.endswith("_total") else "gauge"
    text = f"The engine's own figure: {name.removesuffix('_total').replace('_', ' ')}."
    return Metric(f"enginehouse_engine_{name.removesuffix('_total')}", text, kind)
