"""The routes under GET /v1/models: the list of models, and the state of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.schemas.common import ERROR_RESPONSES
from app.schemas.models import ModelCard, ModelList, ModelReport
from app.server import Server
from balancer.proxy.hops import HOPS_HEADER
from engines.lifecycle.states import ModelState
from engines.models.model import Model

router = APIRouter(tags=["Models"], responses={code: ERROR_RESPONSES[code] for code in (401,)})


@router.get("/v1/models", summary="List the models that requests may name")
async def list_models(
    request: Request,
    all: Annotated[bool, Query(description="Also those of the catalog that are not on disk yet.")] = False,
) -> ModelList:
    """Another Enginehouse, which asks as an upstream's client, is told only of the models that are here: what
    this server has from its own upstreams would go round in circles if two had each other."""
    server: Server = request.app.state.server
    is_server = HOPS_HEADER.decode() in request.headers
    # The default model first: clients without a wish take the first.
    models = sorted(server.library.models(), key=lambda model: model.name != server.default.name)
    cards = [card for model in models for card in _cards(server, model, only_own=is_server)]
    if not is_server:
        elsewhere = [name for name in server.fleet.upstreams.models() if server.is_elsewhere(name)]
        cards += [_of_upstreams(server, name).card() for name in elsewhere]
    cards = [card for card in cards if all or card.state is not ModelState.ABSENT]
    return ModelList(data=cards, server_id=server.cluster.proxy.server_id)


@router.get(
    "/v1/models/{model:path}/status",
    summary="Everything about one model: state, progress, memory, last error",
    responses={404: ERROR_RESPONSES[404]},
)
async def model_status(model: str, request: Request) -> ModelReport:
    server: Server = request.app.state.server
    return _report(server, model)


@router.get("/v1/models/{model:path}", summary="Look at one model", responses={404: ERROR_RESPONSES[404]})
async def get_model(model: str, request: Request) -> ModelCard:
    server: Server = request.app.state.server
    return _report(server, model).card()


def _report(server: Server, name: str) -> ModelReport:
    """Raises `ModelFileNotFound`."""
    if server.is_elsewhere(name):
        return _of_upstreams(server, name)
    return _of_library(server, server.library.find(name))


def _of_library(server: Server, model: Model) -> ModelReport:
    """A model that is not on disk may be served all the same, by upstreams."""
    report = server.report(model)
    if report.state is ModelState.ABSENT and server.fleet.upstreams.serving(model.name):
        return _of_upstreams(server, model.name, model.aliases)
    return report


def _of_upstreams(server: Server, name: str, aliases: Sequence[str] = ()) -> ModelReport:
    return ModelReport.of_upstreams(
        name,
        server.fleet.upstreams.serving(name),
        requests=server.balancer.ongoing(name),
        created=server.created,
        aliases=aliases,
    )


def _cards(server: Server, model: Model, *, only_own: bool) -> list[ModelCard]:
    """The model's card, then those of its adapters; ``only_own``: as if there were no upstreams."""
    card = (server.report(model) if only_own else _of_library(server, model)).card()
    return [card, *(card.of_adapter(adapter.name) for adapter in model.entry.adapters)]
