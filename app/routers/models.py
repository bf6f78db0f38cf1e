"""GET /v1/models: which models there are and how each does."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.reports import upstream_report
from app.schemas.common import ERROR_RESPONSES
from app.schemas.models import ModelCard, ModelList, ModelReport
from app.server import Server
from balancer.backends.upstream import UpstreamBackend
from engines.lifecycle.states import ModelState
from engines.models.model import Model

router = APIRouter(tags=["Models"], responses={code: ERROR_RESPONSES[code] for code in (401,)})


@router.get("/v1/models", summary="List the models that requests may name")
async def list_models(
    request: Request,
    all: Annotated[bool, Query(description="Also those of the catalog that are not on disk yet.")] = False,
) -> ModelList:
    server: Server = request.app.state.server
    # The default model first: clients without a wish take the first.
    models = sorted(server.library.models(), key=lambda model: model.name != server.default.name)
    cards = [card for model in models for card in _cards(server, model)]
    cards += [_card(_elsewhere(server, name)) for name in _names_elsewhere(server)]
    return ModelList(data=[card for card in cards if all or card.state is not ModelState.ABSENT])


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
    return _card(_report(server, model))


def _report(server: Server, name: str) -> ModelReport:
    """Raises `ModelFileNotFound`."""
    if server.is_elsewhere(name):
        return _elsewhere(server, name)
    return _of_library(server, server.library.find(name))


def _of_library(server: Server, model: Model) -> ModelReport:
    """One that is not on disk may be served all the same, by upstreams."""
    report = server.report(model)
    if report.state is not ModelState.ABSENT or not _upstreams(server, model.name):
        return report
    there = _elsewhere(server, model.name)
    return there.model_copy(update={"aliases": report.aliases})


def _elsewhere(server: Server, name: str) -> ModelReport:
    requests = server.balancer.ongoing(name)
    return upstream_report(name, _upstreams(server, name), requests=requests, created=server.created)


def _upstreams(server: Server, name: str) -> list[UpstreamBackend]:
    return [remote for remote in server.fleet.upstreams if remote.serves(name)]


def _names_elsewhere(server: Server) -> list[str]:
    names = dict.fromkeys(name for remote in server.fleet.upstreams for name in remote.models)
    return [name for name in names if server.is_elsewhere(name)]


def _card(report: ModelReport) -> ModelCard:
    return ModelCard.model_validate(report, from_attributes=True)


def _cards(server: Server, model: Model) -> list[ModelCard]:
    """The model's, then those of its adapters, which requests name like models."""
    card = _card(_of_library(server, model))
    adapters = (adapter.name for adapter in model.entry.adapters)
    return [card, *(card.model_copy(update={"id": a, "parent": card.id, "aliases": []}) for a in adapters)]
