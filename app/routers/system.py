"""The routes that tell the server's health and metrics: to load balancers, Prometheus and people."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from app import __version__
from app.errors import ApiError
from app.schemas.common import ErrorEnvelope
from app.schemas.system import Alive, ReadinessReport, SystemHealth, SystemMetrics, Version, health_of
from app.server import Server
from balancer.backends.base import BackendState

router = APIRouter(tags=["System"])

_RETRY_SECONDS = 5
_RETRY_AFTER = {"Retry-After": str(_RETRY_SECONDS)}


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Alive:
    """200 as long as the process answers. For liveness probes: a loading model is no reason to restart."""
    return Alive()


@router.get(
    "/readyz",
    summary="Can it serve requests?",
    responses={503: {"model": ReadinessReport, "description": "No backend is ready"}},
)
async def readyz(request: Request, response: Response) -> ReadinessReport:
    """200 once a backend is ready, else 503 with the state of each. For readiness probes."""
    server: Server = request.app.state.server
    report = ReadinessReport.of(server.balancer.statuses())
    if report.status == "not_ready":
        _mark_unavailable(response)
    return report


@router.get(
    "/health",
    summary="Can it serve requests? As llama-server's users and vLLM's ask",
    responses={503: {"model": ErrorEnvelope, "description": "A model is loading, or no backend is ready"}},
)
async def health(request: Request) -> Alive:
    """As `/readyz`, in llama-server's words."""
    server: Server = request.app.state.server
    statuses = server.balancer.statuses()
    if health_of(statuses) != "unavailable":
        return Alive()
    if any(each.state is BackendState.STARTING for each in statuses):
        raise ApiError(503, "model_loading", "Loading model", retry_after=_RETRY_SECONDS)
    raise ApiError(503, "no_backend", "No backend is ready: /readyz says why.", retry_after=_RETRY_SECONDS)


@router.get("/version", summary="The server's version")
async def version() -> Version:
    return Version(version=__version__)


@router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def prometheus(request: Request) -> Response:
    """Prometheus' text format, or OpenMetrics if the Accept header asks for it."""
    server: Server = request.app.state.server
    body, content_type = server.metrics.render(request.headers.get("accept", ""))
    return Response(body, media_type=content_type)


@router.get(
    "/v1/system/health",
    summary="Health of the server and its backends",
    responses={503: {"model": SystemHealth, "description": "No backend is ready"}},
)
async def system_health(request: Request, response: Response) -> SystemHealth:
    """The state of every backend. 503 if none is ready, with the same body."""
    server: Server = request.app.state.server
    health = SystemHealth.of(server.balancer.statuses(), time.monotonic() - server.started_at)
    if health.status == "unavailable":
        _mark_unavailable(response)
    return health


@router.get("/v1/system/metrics", summary="Metrics as JSON", response_model=SystemMetrics)
async def system_metrics(request: Request) -> dict[str, Any]:
    """Throughput, latency, load and memory at a glance; `/metrics` has them by model for Prometheus."""
    server: Server = request.app.state.server
    return server.metrics.snapshot()


def _mark_unavailable(response: Response) -> None:
    response.status_code = 503
    response.headers.update(_RETRY_AFTER)
