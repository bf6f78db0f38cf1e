"""Backends that are engines of this process."""

from __future__ import annotations

from balancer.backends.managed import ManagedBackend
from balancer.call import Call, Reply, ResumePoint
from balancer.errors import NoBackend


class LocalBackend(ManagedBackend):
    """An engine of this process."""

    kind = "local"

    async def run(self, call: Call, resume_point: ResumePoint | None = None) -> Reply:
        resident = self._manager.resident(self.instance.key)
        if resident is None:
            raise self._gone()
        if call.run is None:
            raise NoBackend(f"{self.name} cannot serve what is only relayed")
        return await call.run(resident, resume_point)
