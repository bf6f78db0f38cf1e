"""GET /v1/models: which models there are and how each does."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.house import House
from app.reports import upstream_report
from app.schemas.common import ERROR_RESPONSES
from app.schemas.models import ModelCard, ModelList, ModelReport
from balancer.remote import RemoteBackend
from engines.library import Model
from engines.manager.states import ModelState

router = APIRouter(tags=["Models"], responses={code: ERROR_RESPONSES[code] for code in (401,)})


@router.get("/v1/models", summary="List the models that requests may name")
async def list_models(
    request: Request,
    all: Annotated[bool, Query(description="Also those of the catalog that are not on disk yet.")] = False,
) -> ModelList:
    house: House = request.app.state.house
    # The default model first: clients without a wish take the first.
    models = sorted(house.library.models(), key=lambda model: model.name != house.default.name)
    cards = [card for model in models for card in _cards(house, model)]
    cards += [_card(_elsewhere(house, name)) for name in _names_elsewhere(house)]
    return ModelList(data=[card for card in cards if all or card.state is not ModelState.ABSENT])


@router.get(
    "/v1/models/{model:path}/status",
    summary="Everything about one model: state, progress, memory, last error",
    responses={404: ERROR_RESPONSES[404]},
)
async def model_status(model: str, request: Request) -> ModelReport:
    house: House = request.app.state.house
    return _report(house, model)


@router.get("/v1/models/{model:path}", summary="Look at one model", responses={404: ERROR_RESPONSES[404]})
async def get_model(model: str, request: Request) -> ModelCard:
    house: House = request.app.state.house
    return _card(_report(house, model))


def _report(house: House, name: str) -> ModelReport:
    """Raises `ModelFileNotFound`."""
    if house.is_elsewhere(name):
        return _elsewhere(house, name)
    return _of_library(house, house.library.find(name))


def _of_library(house: House, model: Model) -> ModelReport:
    """One that is not on disk may be served all the same, by upstreams."""
    report = house.report(model)
    if report.state is not ModelState.ABSENT or not _upstreams(house, model.name):
        return report
    there = _elsewhere(house, model.name)
    return there.model_copy(update={"aliases": report.aliases})


def _elsewhere(house: House, name: str) -> ModelReport:
    requests = house.balancer.ongoing(name)
    return upstream_report(name, _upstreams(house, name), requests=requests, created=house.created)


def _upstreams(house: House, name: str) -> list[RemoteBackend]:
    return [remote for remote in house.fleet.remotes if remote.serves(name)]


def _names_elsewhere(house: House) -> list[str]:
    names = dict.fromkeys(name for remote in house.fleet.remotes for name in remote.models)
    return [name for name in names if house.is_elsewhere(name)]


def _card(report: ModelReport) -> ModelCard:
    return ModelCard.model_validate(report, from_attributes=True)


def _cards(house: House, model: Model) -> list[ModelCard]:
    """The model's, then those of its adapters, which requests name like models."""
    card = _card(_of_library(house, model))
    adapters = (adapter.name for adapter in model.entry.adapters)
    return [card, *(card.model_copy(update={"id": a, "parent": card.id, "aliases": []}) for a in adapters)]
