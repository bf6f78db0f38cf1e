"""Backends that are other OpenAI-compatible servers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from balancer.backends.base import Backend, BackendState, BackendStatus
from balancer.backends.readiness import Arrival, Coming, Gone
from balancer.backends.upstream_config import Upstream
from balancer.call import Call, Reply, ResumePoint
from balancer.errors import DEFAULT_RETRY, BackendFailed, BadAnswer, BalancerError, NoBackend, NotLetIn
from balancer.health.prober import PROBE_SECONDS, Prober, ProbeResult
from balancer.proxy.client import ProxyClient
from balancer.proxy.guard import Guard
from balancer.proxy.hops import MAX_HOPS
from engines.models.catalog import check_name

logger = logging.getLogger("balancer.backends.upstream")

# The part of our paths that an upstream's URL has already.
PREFIX = "/v1"
# Paths of ours that other servers have beside /v1.
OUTSIDE = frozenset({"/v1/tokenize", "/v1/detokenize", "/v1/apply-template", "/v1/infill"})
# Models that one upstream may list: those after them do not count.
MAX_MODELS = 10_000
# What an upstream answers if it does not let this server in.
_NOT_LET_IN = (401, 403, 407)


class UpstreamBackend(Backend):
    """One upstream, whose health and models a probe (``GET /models``) looks at every ``interval`` seconds.

    Before the first probe answered it is ready if it is known what models it has, and starting if not.
    ``guard`` knows the addresses that it may have; None: any. ``on_change`` is called when its state or its
    models are others than before.
    """

    kind = "remote"

    def __init__(
        self,
        upstream: Upstream,
        proxy: ProxyClient,
        *,
        interval: float,
        guard: Guard | None = None,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(upstream.name, weight=upstream.weight, limit=upstream.max_concurrent, clock=clock)
        self._upstream = upstream
        self._proxy = proxy
        self._guard = guard
        self._on_change = on_change
        self._prober = Prober(self._probe, self._report, interval=interval, sleep=sleep)
        self._models: Mapping[str, str] = upstream.models
        # Whether it is known what it serves: without a configured list, a probe has to ask.
        self._is_known = bool(upstream.models)
        self._server_id = ""  # its own, if it is a server such as this one
        self._is_refused = self._is_draining = False
        self._refusal = 0  # the status with which it refused the last call, if it did
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

    def admits(self, call: Call) -> bool:
        """A request that came through it, or through this server before, would go round in circles."""
        hops = call.hops
        return len(hops) < MAX_HOPS and self._proxy.server_id not in hops and self._server_id not in hops

    def _absence(self) -> Coming | Gone:
        if self.state is BackendState.STARTING:
            return Coming(Arrival.STARTING, self._absent)
        return Gone(self._absent)

    def _absent(self) -> BalancerError:
        """The error for calls that find it starting, unhealthy or draining."""
        message = f"upstream {self.name} is {self.state}{self._because}"
        if self._is_refused:
            return BadAnswer(f"{message}: that is for this server's operator to mend")
        return NoBackend(message, DEFAULT_RETRY)

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
        theirs = next((self._models[name] for name in call.target.names if name in self._models), None)
        if theirs is None:
            raise BackendFailed(f"{self.name} does not have model {call.target.name} any more")
        base = self._upstream.url.removesuffix(PREFIX) if call.path in OUTSIDE else self._upstream.url
        reply = await self._proxy.post(
            base + call.path.removeprefix(PREFIX),
            call.headers,
            call.body_for(theirs),
            wire=call.wire,
            meter=call.meter,
            key=self._upstream.api_key,
            request_id=call.request_id,
            hops=call.hops,
            guard=self._guard,
        )
        if reply.status in _NOT_LET_IN:
            reply.body.close()
            raise self._not_let_in(reply.status)
        self._refusal = 0
        return reply

    def _not_let_in(self, status: int) -> NotLetIn:
        """The error for a call that it refused. It is logged once, until another call is served."""
        reason = f"{self._complaint} (status {status})"
        if self._refusal != status:
            logger.warning("upstream %s serves no calls: it %s", self.name, reason)
        self._refusal = status
        return NotLetIn(f"upstream {self.name} {reason}: that is for this server's operator to mend", status)

    @property
    def _complaint(self) -> str:
        return "does not accept the key it was given" if self._upstream.api_key else "wants a key"

    # -- health ------------------------------------------------------------------------------------

    async def _probe(self) -> ProbeResult:
        """Ask ``GET /models``, and take in what models it lists."""
        url, key = f"{self._upstream.url}/models", self._upstream.api_key
        try:
            status, body = await self._proxy.get(url, timeout=PROBE_SECONDS, key=key, guard=self._guard)
        except BackendFailed as failure:
            return ProbeResult(False, failure.message)
        self._is_refused = status in _NOT_LET_IN
        if self._is_refused:
            return ProbeResult(None, f"it {self._complaint} (status {status})")
        if status >= 500:
            return ProbeResult(False, f"GET /models gives status {status}")
        document = _document(body) if status == 200 else {}
        server_id = document.get("server_id")
        self._server_id = server_id if isinstance(server_id, str) else ""
        self._is_refused = self._server_id == self._proxy.server_id
        if self._is_refused:
            return ProbeResult(None, "it is this server itself")
        return ProbeResult(True, "" if self._upstream.models else self._discover(status, document))

    def _discover(self, status: int, document: Mapping[str, Any]) -> str:
        """Take over the models that the upstream lists; return what is wrong with the list, if anything."""
        self._is_known = True
        models = _listed(document)
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


def _document(body: bytes) -> dict[str, Any]:
    """The JSON object that ``body`` is; empty if it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _listed(document: Mapping[str, Any]) -> dict[str, str] | None:
    """The models in an answer to ``GET /models``; None if it is none."""
    entries = document.get("data")
    if not isinstance(entries, list):
        return None
    names = [entry.get("id") for entry in entries[:MAX_MODELS] if isinstance(entry, dict)]
    models = {name: name for name in names if isinstance(name, str) and _is_name(name)}
    return models if models or not entries else None


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except ValueError:
        return False
    return True
