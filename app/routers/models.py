"""GET /v1/models: which models there are and how each does."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.house import House
from app.schemas.common import ERROR_RESPONSES
from app.schemas.models import ModelCard, ModelList, ModelReport
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
    return ModelList(data=[card for card in cards if all or card.state is not ModelState.ABSENT])


@router.get(
    "/v1/models/{model:path}/status",
    summary="Everything about one model: state, progress, memory, last error",
    responses={404: ERROR_RESPONSES[404]},
)
async def model_status(model: str, request: Request) -> ModelReport:
    house: House = request.app.state.house
    return house.report(house.library.find(model))


@router.get("/v1/models/{model:path}", summary="Look at one model", responses={404: ERROR_RESPONSES[404]})
async def get_model(model: str, request: Request) -> ModelCard:
    house: House = request.app.state.house
    return ModelCard.model_validate(house.report(house.library.find(model)), from_attributes=True)


def _cards(house: House, model: Model) -> list[ModelCard]:
    """The model's, then those of its adapters, which requests name like models."""
    card = ModelCard.model_validate(house.report(model), from_attributes=True)
    adapters = (adapter.name for adapter in model.entry.adapters)
    return [card, *(card.model_copy(update={"id": a, "parent": card.id, "aliases": []}) for a in adapters)]
