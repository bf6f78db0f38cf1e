"""GET /v1/models."""

from __future__ import annotations

from fastapi import APIRouter, Request

from app.house import House
from app.schemas.common import ERROR_RESPONSES
from app.schemas.models import ModelCard, ModelList

router = APIRouter(tags=["Models"], responses={code: ERROR_RESPONSES[code] for code in (401,)})


@router.get("/v1/models", summary="List the models that requests may name")
async def list_models(request: Request) -> ModelList:
    return ModelList(data=[_card(request.app.state.house)])


@router.get("/v1/models/{model:path}", summary="Look at one model", responses={404: ERROR_RESPONSES[404]})
async def get_model(model: str, request: Request) -> ModelCard:
    house: House = request.app.state.house
    house.canonical(model)
    return _card(house)


def _card(house: House) -> ModelCard:
    status = house.backend.status()
    return ModelCard(
        id=house.model.name,
        created=house.created,
        state=status.state,
        aliases=list(house.model.aliases),
        engine=status.info.engine if status.info else None,
        size=house.model.size or None,
        context_length=status.info.context_length if status.info else None,
    )
