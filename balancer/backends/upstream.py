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
from balancer.health.prober import PROBE_SECONDS, Prober, ProbeResult
from balancer.proxy.client import ProxyClient

logger = logging.getLogger("balancer.backends.upstream")

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
        self._on_change = on_change
        self._prober = Prober(self._probe, self._report, interval=interval, sleep=sleep)
        self._models: Mapping[str, str] = upstream.models
        # Whether it is known what it serves: without a configured list, a probe has to ask.
        self._is_known = bool(upstream.models)
        self._is_refused = self._is_draining = False
        self._reported = self.state, self._models

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look at its health."""
        self._prober.start()

    async def stop(self) -> None:
        await self._prober.stop()

    def drain(self) -> None:
        """Take no more calls; those that run go on."""
        self._is_draining = True
        self._reported = self.state, self._models
        self._on_change()

    def suspect(self) -> None:
        """A call failed here: that counts as a failed probe, and the next one comes at once."""
        self._prober.suspect()

    # -- what the balancer asks --------------------------------------------------------------------

    @property
    def state(self) -> BackendState:
        if self._is_draining:
            return BackendState.DRAINING
        if self._is_refused or not self._prober.healthy:
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
        return f": {self._prober.detail}" if self._prober.detail else ""

    def status(self) -> BackendStatus:
        return BackendStatus(
            **self.figures(), models=self.models, detail=self._prober.detail, url=self._upstream.url
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

    async def _probe(self) -> ProbeResult:
        """Ask ``GET /models``, and take in what models it lists."""
        url, key = f"{self._upstream.url}/models", self._upstream.api_key
        try:
            status, body = await self._proxy.get(url, timeout=PROBE_SECONDS, key=key)
        except BackendFailed as failure:
            return ProbeResult(False, failure.message)
        self._is_refused = status in (401, 403)
        if self._is_refused:
            known = "does not accept the key it was given" if key else "wants a key"
            return ProbeResult(None, f"it {known} (status {status})")
        if status >= 500:
            return ProbeResult(False, f"GET /models gives status {status}")
        return ProbeResult(True, "" if self._upstream.models else self._discover(status, body))

    def _discover(self, status: int, body: bytes) -> str:
        """Take over the models that the upstream lists; return what is wrong with the list, if anything."""
        self._is_known = True
        models = _listed(body) if status == 200 else None
        if models is None:
            return f"GET /models gives no list (status {status}): name its models in the settings"
        self._models = models
        return ""

    def _report(self) -> None:
        """Say so if its state or its models are others than when this was last called."""
        (state, models), self._reported = self._reported, (self.state, self._models)
        if self.state is not state:
            level = logging.WARNING if self.state is BackendState.UNHEALTHY else logging.INFO
            logger.log(level, "upstream %s is %s%s", self.name, self.state, self._because)
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
