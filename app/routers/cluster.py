"""The cluster's routes: instances, upstreams, and the strategy that balances calls over them."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from app.routers.admin import BoundedRoute, admin_only
from app.schemas.cluster import ClusterStatus, UpstreamReport
from app.schemas.common import ERROR_RESPONSES
from app.schemas.operations import (
    NewUpstream,
    RestartAccepted,
    Restarted,
    RestartRequest,
    Scaled,
    ScaleRequest,
    StrategyRequest,
    StrategySet,
    UpstreamAdded,
    UpstreamRemoved,
)
from app.server import Server
from balancer.instances import InstanceKind

STATUS_PATH = "/v1/cluster/status"


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: ERROR_RESPONSES[code] for code in codes}


router = APIRouter(tags=["Cluster"], responses=_errors(401), route_class=BoundedRoute)


@router.get(STATUS_PATH, summary="How the instances and the upstreams do")
async def cluster_status(request: Request) -> ClusterStatus:
    server: Server = request.app.state.server
    return ClusterStatus.of(server.cluster, server.settings)


# -- instances ---------------------------------------------------------------------------------------


@router.post(
    "/v1/cluster/scale",
    summary="Start or stop instances of a model",
    dependencies=[admin_only],
    responses=_errors(400, 403, 404, 409),
)
async def scale(body: ScaleRequest, request: Request) -> Scaled:
    """New instances are there once they are loaded, as far as there is room: the status says how far they
    are. Those that go take no more calls and finish the ones they have.

    A model that is not loaded is loaded by `scale_up`, in as many instances as it is to have and `count`
    more. With AUTO_SCALING on, only from MIN_INSTANCES to MAX_INSTANCES, and what is idle goes again.
    """
    server: Server = request.app.state.server
    name = server.default.name if body.model is None else body.model
    kind = None if body.kind is None else InstanceKind(body.kind)
    return Scaled.of(server.cluster.operations.scale(name, body.change, kind))


@router.post(
    "/v1/cluster/restart",
    summary="Start an instance anew, or all of them, one after the other",
    dependencies=[admin_only],
    response_model=Restarted,
    responses=_errors(400, 403, 404, 409, 503)
    | {202: {"model": RestartAccepted, "description": "`wait` was false: the restart goes on"}},
)
async def restart(body: RestartRequest, request: Request) -> Any:
    """Each instance finishes the calls that it has first, for as long as SHUTDOWN_GRACE; what then still
    runs goes on elsewhere. In place of a model's only instance another one serves meanwhile.

    200 once all are back. 503 if one did not come back: those after it were left alone. It goes on even if
    the client leaves.
    """
    server: Server = request.app.state.server
    rolling = server.cluster.operations.restart(body.instance_id)
    if body.wait:
        return Restarted.of(await asyncio.shield(rolling.task))
    instances = list(rolling.instances)
    message = f"restarting {', '.join(instances)}"
    accepted = RestartAccepted(message=message, instances=instances, status_url=STATUS_PATH)
    return JSONResponse(accepted.model_dump(), 202, {"Location": STATUS_PATH})


@router.post(
    "/v1/cluster/strategy",
    summary="Choose how calls are balanced",
    dependencies=[admin_only],
    responses=_errors(400, 403),
)
async def set_strategy(body: StrategyRequest, request: Request) -> StrategySet:
    """From the next call on, until the server is started again: then LOAD_BALANCE_STRATEGY counts."""
    server: Server = request.app.state.server
    before, server.fleet.strategy = server.fleet.strategy, body.strategy
    return StrategySet(
        message=f"calls are balanced by {body.strategy} instead of {before}",
        load_balancer_strategy=body.strategy,
    )


# -- upstreams ---------------------------------------------------------------------------------------


@router.post(
    "/v1/cluster/upstreams",
    summary="Add another OpenAI-compatible server that calls may go to",
    status_code=201,
    dependencies=[admin_only],
    responses=_errors(400, 403, 409),
)
async def add_upstream(body: NewUpstream, request: Request) -> UpstreamAdded:
    """It takes calls as soon as it answers a look at its models, until the server is started again.

    This server sends requests to whatever address is given here, so only administrators may give one, and
    only one that ALLOWED_UPSTREAMS has; unset, any but link-local and metadata addresses.
    """
    server: Server = request.app.state.server
    backend = await server.cluster.operations.add_upstream(body.upstream())
    report = UpstreamReport.of(backend.status())
    return UpstreamAdded(message=f"added {backend.name}", name=backend.name, upstream=report)


@router.delete(
    "/v1/cluster/upstreams/{name:path}",
    summary="Take an upstream out",
    dependencies=[admin_only],
    responses=_errors(403, 404),
)
async def remove_upstream(name: str, request: Request) -> UpstreamRemoved:
    """It gets no more calls; those that it serves go on to their end. One of UPSTREAMS or of the catalog
    comes back when the server is started again."""
    server: Server = request.app.state.server
    backend = await server.cluster.operations.remove_upstream(name)
    return UpstreamRemoved(message=f"removed {name}", name=name, inflight=backend.inflight)
