"""The autoscaler: decides how many instances a model has."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

HISTORY = 20


@dataclass(frozen=True, slots=True)
class Decision:
    """A new count of ``instances``. ``reason`` is for people; ``at`` is the clock's time of the decision."""

    instances: int
    reason: str
    at: float


class Autoscaler:
    """Decides so that each instance has ``target`` ongoing requests, running or queued.

    Up once more instances were needed without interruption for ``up_after`` seconds, and then to what is
    needed now. Down once fewer were needed for ``down_after`` seconds, and then to the most that was needed
    in that time. The signal and its two delays are Ray Serve's (target_ongoing_requests), going down to the
    highest is the stabilization window of Kubernetes' HPA. Outside the limits it acts at once.
    """

    def __init__(
        self, target: float, minimum: int, maximum: int, up_after: float = 30.0, down_after: float = 300.0
    ) -> None:
        """Raises `ValueError` for a target or limits that make no sense."""
        if not target > 0:
            raise ValueError(f"the target of requests for each instance must be above 0, not {target:g}")
        self._target = target
        self._up_after = up_after
        self._down_after = down_after
        self._short_since: float | None = None
        self._spare_since: float | None = None
        self._most_needed = 0  # since then
        self._history: deque[Decision] = deque(maxlen=HISTORY)
        self.set_limits(minimum, maximum)

    @property
    def minimum(self) -> int:
        return self._minimum

    @property
    def maximum(self) -> int:
        return self._maximum

    @property
    def history(self) -> Sequence[Decision]:
        """The last decisions, oldest first."""
        return tuple(self._history)

    def set_limits(self, minimum: int, maximum: int) -> None:
        """Raises `ValueError` unless 1 ≤ ``minimum`` ≤ ``maximum``."""
        if not 1 <= minimum <= maximum:
            raise ValueError(f"instances need 1 <= minimum <= maximum, not {minimum} and {maximum}")
        self._minimum = minimum
        self._maximum = maximum

    def desired(self, ongoing: int) -> int:
        """Instances that ``ongoing`` requests ask for, within the limits."""
        return min(self._maximum, max(self._minimum, math.ceil(ongoing / self._target)))

    def decide(self, now: float, ongoing: int, instances: int) -> Decision | None:
        """The decision, if the count is to change; to be asked every second or so.

        ``instances`` counts those that start as well as those that serve, or one shortage would be answered
        again and again while its answer loads.
        """
        decision = (
            self._within_limits(now, instances)
            or self._more(now, ongoing, instances)
            or self._fewer(now, ongoing, instances)
        )
        if decision is not None:
            self._short_since = self._spare_since = None
            self._history.append(decision)
        return decision

    def _within_limits(self, now: float, instances: int) -> Decision | None:
        if instances < self._minimum:
            return Decision(self._minimum, f"the minimum is {self._minimum}, there are {instances}", now)
        if instances > self._maximum:
            return Decision(self._maximum, f"the maximum is {self._maximum}, there are {instances}", now)
        return None

    def _more(self, now: float, ongoing: int, instances: int) -> Decision | None:
        desired = self.desired(ongoing)
        if desired <= instances:
            self._short_since = None
            return None
        if self._short_since is None:
            self._short_since = now
        if now - self._short_since < self._up_after:
            return None
        reason = (
            f"{ongoing} requests ongoing ask for {self._asked(ongoing)}; "
            f"more than {instances} were needed for {self._up_after:g} s"
        )
        return Decision(desired, reason, now)

    def _asked(self, ongoing: int) -> str:
        needed = math.ceil(ongoing / self._target)
        capped = f" (the maximum is {self._maximum})" if needed > self._maximum else ""
        return f"{needed} instances of {self._target:g} each{capped}"

    def _fewer(self, now: float, ongoing: int, instances: int) -> Decision | None:
        desired = self.desired(ongoing)
        if desired >= instances:
            self._spare_since = None
            return None
        self._most_needed = max(self._most_needed, desired)
        # The second: instances went away meanwhile, and what was spare then would not be now.
        if self._spare_since is None or self._most_needed >= instances:
            self._spare_since, self._most_needed = now, desired
        if now - self._spare_since < self._down_after:
            return None
        most = self._most_needed
        reason = f"no more than {most} of {instances} instances were needed for {self._down_after:g} s"
        return Decision(most, reason, now)
