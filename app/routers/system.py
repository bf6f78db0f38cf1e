"""How the server does: for load balancers, for Prometheus and for people."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from app import __version__
from app.schemas.system import (
    Alive,
    BackendReadiness,
    BackendReport,
    HealthState,
    Readiness,
    SystemHealth,
    SystemMetrics,
)
from app.telemetry.metrics import Metrics
from balancer.backends.base import BackendState, BackendStatus

router = APIRouter(tags=["System"])

_RETRY_AFTER = {"Retry-After": "5"}
# What is stopped, or about to be, is loaded as soon as a request asks for it: except replicas, which follow.
_AT_REST = (BackendState.STOPPED, BackendState.DRAINING)
_BROKEN = (BackendState.UNHEALTHY, BackendState.FAILED)


class Balancer(Protocol):
    def statuses(self) -> list[BackendStatus]: ...


class Server(Protocol):
    """What these routes need of ``app.state.server``; ``started_at`` is a `time.monotonic`."""

    @property
    def balancer(self) -> Balancer: ...

    @property
    def metrics(self) -> Metrics: ...

    @property
    def started_at(self) -> float: ...


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Alive:
    """200 as long as the process answers. For liveness probes: a loading model is no reason to restart."""
    return Alive()


@router.get(
    "/readyz",
    summary="Can it serve requests?",
    responses={503: {"model": Readiness, "description": "No backend is ready"}},
)
async def readyz(request: Request, response: Response) -> Readiness:
    """200 once a backend is ready, else 503 with the state of each. For readiness probes."""
    statuses = _server(request).balancer.statuses()
    ready = _health(statuses) != "unavailable"
    if not ready:
        _mark_unavailable(response)
    return Readiness(
        status="ready" if ready else "not_ready",
        backends=[BackendReadiness.model_validate(each, from_attributes=True) for each in statuses],
    )


@router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def prometheus(request: Request) -> Response:
    """Prometheus' text format, or OpenMetrics if the Accept header asks for it."""
    body, content_type = _server(request).metrics.render(request.headers.get("accept", ""))
    return Response(body, media_type=content_type)


@router.get(
    "/v1/system/health",
    summary="Health of the server and its backends",
    responses={503: {"model": SystemHealth, "description": "No backend is ready"}},
)
async def system_health(request: Request, response: Response) -> SystemHealth:
    """The state of every backend. 503 if none is ready, with the same body."""
    server = _server(request)
    statuses = server.balancer.statuses()
    status = _health(statuses)
    if status == "unavailable":
        _mark_unavailable(response)
    return SystemHealth(
        status=status,
        version=__version__,
        uptime_seconds=time.monotonic() - server.started_at,
        backends=[BackendReport.of(each) for each in statuses],
    )


@router.get("/v1/system/metrics", summary="Metrics as JSON", response_model=SystemMetrics)
async def system_metrics(request: Request) -> dict[str, Any]:
    """Throughput, latency, load and memory at a glance; `/metrics` has them by model for Prometheus."""
    return _server(request).metrics.snapshot()


def _server(request: Request) -> Server:
    return cast(Server, request.app.state.server)


def _health(statuses: Sequence[BackendStatus]) -> HealthState:
    if not any(_serves(status) for status in statuses):
        return "unavailable"
    return "degraded" if any(_is_broken(status) for status in statuses) else "ok"


def _serves(status: BackendStatus) -> bool:
    if status.state is BackendState.READY:
        return status.breaker != "open"
    return status.state in _AT_REST and not status.is_replica


def _is_broken(status: BackendStatus) -> bool:
    return status.state in _BROKEN or status.breaker == "open"


def _mark_unavailable(response: Response) -> None:
    response.status_code = 503
    response.headers.update(_RETRY_AFTER)
