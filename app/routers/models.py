"""GET /v1/models: which models there are and how each does."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.house import House
from app.schemas.common import ERROR_RESPONSES
from app.schemas.models import ModelCard, ModelList, ModelReport
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
    reports = [house.report(model) for model in models]
    shown = [each for each in reports if all or each.state is not ModelState.ABSENT]
    return ModelList(data=[ModelCard.model_validate(each, from_attributes=True) for each in shown])


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
