"""Scaling: carries out the decisions of an autoscaler for every model."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from balancer.autoscaler import Autoscaler, Decision
from balancer.balancer import Balancer
from balancer.fleet import Fleet
from engines.lifecycle.manager import ModelManager
from engines.lifecycle.states import ModelState

logger = logging.getLogger("balancer")

_UP = (ModelState.READY, ModelState.LOADING)


@dataclass(frozen=True, slots=True)
class ScalingLimits:
    """Limits of every autoscaler: a ``target`` of calls, running or waiting, for each instance."""

    target: int = 16
    minimum: int = 1
    maximum: int = 10


class Scaling:
    """One autoscaler for each model that is loaded. `tick` is to be called every second or so.

    ``counts``: the decisions since the start, by model and "up" or "down".
    """

    def __init__(
        self,
        fleet: Fleet,
        manager: ModelManager,
        balancer: Balancer,
        limits: ScalingLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self._fleet = fleet
        self._manager = manager
        self._balancer = balancer
        self._clock = clock
        self._autoscalers: dict[str, Autoscaler] = {}
        self.counts: Counter[tuple[str, str]] = Counter()

    def tick(self) -> None:
        for model in self._fleet.models():
            if any(self._manager.state(each.key) in _UP for each in self._fleet.instances(model)):
                self._decide(model)
            else:
                self._autoscalers.pop(model, None)

    def desired(self) -> dict[str, int]:
        """By model, the instances that its calls need now; a decision follows once that has lasted."""
        ongoing = self._balancer.ongoing
        return {model: each.desired(ongoing(model)) for model, each in self._autoscalers.items()}

    def history(self, model: str) -> list[tuple[float, Decision]]:
        """The last decisions, oldest first, and how many seconds ago each was made."""
        autoscaler = self._autoscalers.get(model)
        now = self._clock()
        return [] if autoscaler is None else [(now - each.at, each) for each in autoscaler.history]

    def _decide(self, model: str) -> None:
        autoscaler = self._autoscalers.get(model)
        if autoscaler is None:
            limits = self.limits
            autoscaler = Autoscaler(limits.target, limits.minimum, limits.maximum)
            self._autoscalers[model] = autoscaler
        before = len(self._fleet.instances(model))
        decision = autoscaler.decide(self._clock(), self._balancer.ongoing(model), before)
        if decision is not None:
            self.counts[model, "up" if decision.instances > before else "down"] += 1
            logger.info(
                "model %s: %d instances instead of %d, as %s",
                model,
                decision.instances,
                before,
                decision.reason,
            )
            self._fleet.scale(model, decision.instances)
