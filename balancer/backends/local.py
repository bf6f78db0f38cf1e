"""Backends that are engines of this process."""

from __future__ import annotations

from typing import cast

from balancer.backends.managed import ManagedBackend
from balancer.call import Call, Reply, ResumePoint
from balancer.errors import NoBackend
from engines.base import Engine


class LocalBackend(ManagedBackend):
    """An engine of this process."""

    kind = "local"

    async def run(self, call: Call, resume_point: ResumePoint | None = None) -> Reply:
        engine = self._manager.resident(self.instance.key)
        if engine is None:
            raise self._gone()
        if call.run is None:
            raise NoBackend(f"{self.name} cannot serve what is only relayed")
        return await call.run(cast(Engine, engine), resume_point)
