"""Backends that are other OpenAI-compatible servers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from balancer.backends.base import Backend, BackendState, BackendStatus
from balancer.backends.readiness import Arrival, Coming, Gone
from balancer.backends.upstream_config import Upstream
from balancer.call import Call, Reply, ResumePoint
from balancer.errors import DEFAULT_RETRY, BackendFailed, NoBackend
from balancer.health.tracker import HealthTracker
from balancer.proxy.client import ProxyClient

logger = logging.getLogger("balancer.backends.upstream")

PROBE_SECONDS = 5.0
# The part of our paths that an upstream's URL has already.
PREFIX = "/v1"
# Models that one upstream may list.
MAX_MODELS = 10_000


class UpstreamBackend(Backend):
    """One upstream, whose health and models a probe (``GET /models``) looks at every ``interval`` seconds.

    Before the first probe answered it is ready if it is known what models it has, and starting if not.
    ``on_change`` is called when its state or its models are others than before.
    """

    kind = "remote"

    def __init__(
        self,
        upstream: Upstream,
        proxy: ProxyClient,
        *,
        interval: float,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(upstream.name, weight=upstream.weight, limit=upstream.max_concurrent, clock=clock)
        self._upstream = upstream
        self._proxy = proxy
        self._interval = interval
        self._on_change = on_change
        self._sleep = sleep
        self._health = HealthTracker()
        self._models: Mapping[str, str] = upstream.models
        # Whether it is known what it serves: without a configured list, a probe has to ask.
        self._is_known = bool(upstream.models)
        self._is_refused = self._is_draining = False
        self._detail = ""
        self._watching: asyncio.Task[None] | None = None
        self._pause: asyncio.Future[None] | None = None

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look at its health."""
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait((watching,))

    def drain(self) -> None:
        """Take no more calls; those that run go on."""
        self._is_draining = True
        self._on_change()

    def suspect(self) -> None:
        """A call failed here: that counts as a failed probe, and the next one comes at once."""
        before = self.state
        if not self._health.suspect():
            self._detail = self._detail or "its calls fail"
        self._report(before, self._models)
        if self._pause is not None:
            self._pause.cancel()

    # -- what the balancer asks --------------------------------------------------------------------

    @property
    def state(self) -> BackendState:
        if self._is_draining:
            return BackendState.DRAINING
        if self._is_refused or not self._health.healthy:
            return BackendState.UNHEALTHY
        return BackendState.READY if self._is_known else BackendState.STARTING

    @property
    def models(self) -> tuple[str, ...]:
        """By our names."""
        return tuple(self._models)

    def serves(self, model: str) -> bool:
        return model in self._models

    def _absence(self) -> Coming | Gone:
        if self.state is BackendState.STARTING:
            return Coming(Arrival.STARTING, self._absent)
        return Gone(self._absent)

    def _absent(self) -> NoBackend:
        """The error for calls that find it starting, unhealthy or draining."""
        return NoBackend(f"upstream {self.name} is {self.state}{self._because}", DEFAULT_RETRY)

    @property
    def _because(self) -> str:
        return f": {self._detail}" if self._detail else ""

    def status(self) -> BackendStatus:
        return BackendStatus(
            **self.figures(), models=self.models, detail=self._detail, url=self._upstream.url
        )

    async def run(self, call: Call, resume_point: ResumePoint | None = None) -> Reply:
        if resume_point is not None:
            raise BackendFailed(f"{self.name} cannot go on with an answer that another backend began")
        theirs = self._models.get(call.target.name)
        if theirs is None:
            raise BackendFailed(f"{self.name} does not have model {call.target.name} any more")
        return await self._proxy.post(
            self._upstream.url + call.path.removeprefix(PREFIX),
            call.headers,
            call.body_for(theirs),
            wire=call.wire,
            meter=call.meter,
            key=self._upstream.api_key,
            request_id=call.request_id,
        )

    # -- health ------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await self._probe()
            # `suspect` cuts the pause short.
            self._pause = asyncio.ensure_future(self._sleep(self._health.next_probe(self._interval)))
            try:
                await asyncio.wait((self._pause,))
            finally:
                self._pause.cancel()
                self._pause = None

    async def _probe(self) -> None:
        before, models = self.state, self._models
        try:
            url = f"{self._upstream.url}/models"
            status, body = await self._proxy.get(url, timeout=PROBE_SECONDS, key=self._upstream.api_key)
        except BackendFailed as failure:
            self._detail = failure.message
            self._health.observe(False)
        else:
            self._learn(status, body)
        self._report(before, models)

    def _learn(self, status: int, body: bytes) -> None:
        """Take in what ``GET /models`` answered."""
        self._is_refused = status in (401, 403)
        self._detail = ""
        if self._is_refused:
            known = "does not accept the key it was given" if self._upstream.api_key else "wants a key"
            self._detail = f"it {known} (status {status})"
        elif status >= 500:
            self._detail = f"GET /models gives status {status}"
            self._health.observe(False)
        else:
            self._health.observe(True)
            if not self._upstream.models:
                self._discover(status, body)

    def _discover(self, status: int, body: bytes) -> None:
        self._is_known = True
        models = _listed(body) if status == 200 else None
        if models is None:
            self._detail = f"GET /models gives no list (status {status}): name its models in the settings"
        else:
            self._models = models

    def _report(self, state: BackendState, models: Mapping[str, str]) -> None:
        """Say so if anything is different from what it was before."""
        if self.state is not state:
            level = logging.WARNING if self.state is BackendState.UNHEALTHY else logging.INFO
            logger.log(
                level, "upstream %s is %s%s", self.name, self.state, self._detail and f": {self._detail}"
            )
        if self.state is not state or self._models != models:
            self._on_change()


def _listed(body: bytes) -> dict[str, str] | None:
    """The models in an answer to ``GET /models``; None if it is none."""
    try:
        entries = json.loads(body)["data"]
        names = [entry["id"] for entry in entries[:MAX_MODELS]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return {name: name for name in names if isinstance(name, str)}
