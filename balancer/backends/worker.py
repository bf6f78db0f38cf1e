"""Backends that are workers: child processes of this server, reached over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from balancer.backends.base import BackendStatus
from balancer.backends.managed import ManagedBackend
from balancer.call import Call, Reply, ResumePoint
from balancer.instances import Instance
from balancer.proxy.client import ProxyClient
from balancer.workers.worker import Worker
from engines.lifecycle.manager import ModelManager


class WorkerBackend(ManagedBackend):
    """A child process of this server, reached over HTTP."""

    kind = "process"

    def __init__(self, manager: ModelManager, instance: Instance, weight: float, proxy: ProxyClient) -> None:
        super().__init__(manager, instance, weight)
        self._proxy = proxy

    @property
    def process(self) -> Worker | None:
        return cast(Worker | None, self._manager.resident(self.instance.key))

    async def run(self, call: Call, resume_point: ResumePoint | None = None) -> Reply:
        process = self.process
        if process is None:
            raise self._gone()
        body = call.worker_body()
        if call.inline is not None:
            body = await call.inline(body)
        return await self._proxy.post_to_worker(
            process.url + call.path,
            call.headers,
            body,
            resume_point=resume_point if call.stream else None,
            wire=call.wire,
            meter=call.meter,
            key=process.key,
            request_id=call.answer_id,
        )

    def status(self) -> BackendStatus:
        process = self.process
        if process is None:
            return super().status()
        return replace(
            super().status(),
            port=process.port,
            pid=process.pid,
            cpu_percent=process.cpu_percent,
            memory_mb=process.memory_mb,
        )

    def suspect(self) -> None:
        process = self.process
        if process is not None:
            process.suspect()
        super().suspect()
