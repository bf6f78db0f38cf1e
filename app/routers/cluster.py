"""The instances of models, the upstreams, and how calls are balanced over them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from app.cluster_report import cluster_report
from app.errors import ApiError
from app.restarts import RestartFailed
from app.routers.admin import admin_only
from app.schemas.cluster import (
    MOST_INSTANCES,
    ClusterStatus,
    NewUpstream,
    RestartAccepted,
    Restarted,
    RestartedInstance,
    RestartRequest,
    Scaled,
    ScaleRequest,
    StrategyRequest,
    StrategySet,
    UpstreamAdded,
    UpstreamRemoved,
    UpstreamReport,
)
from app.schemas.common import ERROR_RESPONSES
from app.server import Server
from balancer.backends.base import BackendState
from balancer.backends.upstream import UpstreamBackend
from balancer.backends.upstream_config import upstream_at
from balancer.instances import InstanceKind
from engines.errors import RequestError
from engines.lifecycle.errors import ModelConflict
from engines.models.model import Model

STATUS_PATH = "/v1/cluster/status"
EVERY_INSTANCE = "all"
# After instances did not come back, in seconds.
RESTART_RETRY = 10.0

# What is loaded, is being loaded or failed can be started anew; what is at rest is started by loading it.
_RESTARTABLE = (
    BackendState.READY,
    BackendState.STARTING,
    BackendState.UNHEALTHY,
    BackendState.FAILED,
)


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: ERROR_RESPONSES[code] for code in codes}


router = APIRouter(tags=["Cluster"], responses=_errors(401))


@router.get(STATUS_PATH, summary="How the instances and the upstreams do")
async def cluster_status(request: Request) -> ClusterStatus:
    server: Server = request.app.state.server
    return cluster_report(server.cluster, server.settings)


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
    model = _scalable(server, body.model)
    server.fleet.ensure(model.name)
    present = len(server.fleet.instances(model.name))
    wanted = _wanted(server, model, present, body)
    total = server.fleet.scale(model.name, wanted, None if body.kind is None else InstanceKind(body.kind))
    if body.action == "scale_up":
        server.manager.want(model.name, server.manager.options(model.name))
    return Scaled(
        message=f"{model.name} has {total} instead of {present} instances",
        model=model.name,
        total_instances=total,
        instances=[instance.id for instance in server.fleet.instances(model.name)],
    )


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
    instances = _restartable(server, body.instance_id)
    task = server.cluster.restarts.begin(instances)
    if not body.wait:
        message = f"restarting {', '.join(instances)}"
        accepted = RestartAccepted(message=message, instances=instances, status_url=STATUS_PATH)
        return JSONResponse(accepted.model_dump(), 202, {"Location": STATUS_PATH})
    try:
        restarted = await asyncio.shield(task)
    except RestartFailed as failure:
        raise _failed(failure) from None
    return Restarted(
        message=f"restarted {', '.join(each.instance_id for each in restarted) or 'nothing'}",
        restarted=[RestartedInstance(**asdict(each)) for each in restarted],
    )


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

    This server sends requests to whatever address is given here, so only administrators may give one.
    """
    server: Server = request.app.state.server
    try:
        upstream = upstream_at(
            body.url,
            name=body.name,
            api_key=body.api_key,
            weight=body.weight,
            models=body.models,
            max_concurrent=body.max_concurrent,
        )
    except ValueError as error:
        raise RequestError(f"url: {error}", param="url") from None
    if _find_upstream(server, upstream.name) is not None:
        raise ApiError(
            409,
            "upstream_exists",
            f"There is an upstream {upstream.name} already: remove it first, or give this one a `name`.",
            param="name",
        )
    status = server.cluster.add_upstream(upstream).status()
    return UpstreamAdded(
        message=f"added {upstream.name}", name=upstream.name, upstream=UpstreamReport.of(status)
    )


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
    remote = _find_upstream(server, name)
    if remote is None:
        names = ", ".join(each.name for each in server.fleet.upstreams) or "none"
        raise ApiError(404, "upstream_not_found", f"There is no upstream {name!r} (upstreams here: {names}).")
    await server.fleet.remove_upstream(remote)
    return UpstreamRemoved(message=f"removed {name}", name=name, inflight=remote.inflight)


# -- inside ------------------------------------------------------------------------------------------


def _scalable(server: Server, name: str | None) -> Model:
    """Raises `ModelFileNotFound`, and `RequestError` for a model that only upstreams have."""
    if name is not None and server.is_elsewhere(name):
        raise RequestError(f"only upstreams have {name}: its instances are theirs to scale", param="model")
    return server.find(server.default.name if name is None else name)


def _wanted(server: Server, model: Model, present: int, body: ScaleRequest) -> int:
    """How many instances there are to be. Raises `RequestError`."""
    wanted = present + (body.count if body.action == "scale_up" else -body.count)
    if wanted < 1:
        raise RequestError(
            f"of {present} instances of {model.name} at most {present - 1} can go; "
            f"to free the model, unload it (DELETE /v1/models/{model.name})",
            param="count",
        )
    if wanted > MOST_INSTANCES:
        raise RequestError(f"a model has at most {MOST_INSTANCES} instances, not {wanted}", param="count")
    scaling = server.cluster.scaling
    if scaling is not None and not scaling.limits.minimum <= wanted <= scaling.limits.maximum:
        minimum, maximum = scaling.limits.minimum, scaling.limits.maximum
        raise RequestError(
            f"AUTO_SCALING would undo it: {model.name} would have {wanted} instances, and MIN_INSTANCES is "
            f"{minimum}, MAX_INSTANCES {maximum}. Change that setting, or set AUTO_SCALING=false",
            param="count",
        )
    return wanted


def _restartable(server: Server, wanted: str) -> list[str]:
    """The ids of the instances to restart. Raises `ApiError` for an unknown one, or `ModelConflict`."""
    states = {status.name: status.state for status in server.fleet.statuses() if status.url is None}
    staying = {instance.id for model in server.fleet.models() for instance in server.fleet.instances(model)}
    if wanted == EVERY_INSTANCE:
        return [name for name, state in states.items() if name in staying and state in _RESTARTABLE]
    if wanted not in states:
        names = ", ".join(states) or "none"
        message = f"There is no instance {wanted!r} (instances here: {names}; or {EVERY_INSTANCE!r})."
        raise ApiError(404, "instance_not_found", message, param="instance_id")
    if wanted not in staying:
        raise ModelConflict(f"{wanted} is on its way out: it finishes its calls and is not started again")
    if states[wanted] not in _RESTARTABLE:
        raise ModelConflict(f"{wanted} is {states[wanted]}: load its model to have it started")
    return [wanted]


def _failed(failure: RestartFailed) -> ApiError:
    outcome = {
        "restarted": [asdict(each) for each in failure.restarted],
        "failed": [failure.instance_id],
        "untouched": list(failure.untouched),
    }
    return ApiError(503, "restart_failed", failure.message, retry_after=RESTART_RETRY, extra=outcome)


def _find_upstream(server: Server, name: str) -> UpstreamBackend | None:
    return next((remote for remote in server.fleet.upstreams if remote.name == name), None)
