"""The routes under GET /v1/models: the list of models, and the state of each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from app.dialects.anthropic.models import model_info, model_page
from app.paths import speaks_anthropic
from app.schemas.common import ERROR_RESPONSES
from app.schemas.models import ModelCard, ModelList, ModelReport
from app.server import Server
from balancer.proxy.hops import HOPS_HEADER
from engines.lifecycle.states import ModelState
from engines.models.model import Model

router = APIRouter(tags=["Models"], responses={code: ERROR_RESPONSES[code] for code in (401,)})

# Cards that are made at once.
STEP = 200


@router.get("/v1/models", summary="List the models that requests may name", response_model=ModelList)
async def list_models(
    request: Request,
    all: Annotated[bool, Query(description="Also those of the catalog that are not on disk yet.")] = False,
) -> Response:
    """Another Enginehouse, which asks as an upstream's client, is told only of the models that are here: what
    this server has from its own upstreams would go round in circles if two had each other. Who sends
    `anthropic-version` gets those that chat, in Anthropic's form (`limit`, `after_id`, `before_id`)."""
    server: Server = request.app.state.server
    only_own = HOPS_HEADER.decode() in request.headers
    cards = (
        card for card in all_cards(server, only_own=only_own) if all or card.state is not ModelState.ABSENT
    )
    if speaks_anthropic(request.scope):
        return JSONResponse(await model_page(cards, request.query_params))
    parts: list[bytes] = []
    # In steps: a catalog may have tens of thousands of models, and other requests are not to wait.
    while step := [card.model_dump_json().encode() for card in islice(cards, STEP)]:
        parts += step
        await asyncio.sleep(0)
    head = b'{"object":"list","server_id":"%b","data":[' % server.cluster.proxy.server_id.encode()
    return Response(head + b",".join(parts) + b"]}", media_type="application/json")


@router.get(
    "/v1/models/{model:path}/status",
    summary="Everything about one model: state, progress, memory, last error",
    responses={404: ERROR_RESPONSES[404]},
)
async def model_status(model: str, request: Request) -> ModelReport:
    server: Server = request.app.state.server
    return report_of(server, model)


@router.get(
    "/v1/models/{model:path}",
    summary="Look at one model",
    response_model=ModelCard,
    responses={404: ERROR_RESPONSES[404]},
)
async def get_model(model: str, request: Request) -> Any:
    card = _card_of(request.app.state.server, model)
    return JSONResponse(model_info(card)) if speaks_anthropic(request.scope) else card


def _card_of(server: Server, name: str) -> ModelCard:
    adapter = server.library.adapters.named(name)
    if adapter is None:
        return report_of(server, name).card()
    base = server.library.get(name)
    assert base is not None
    return _of_library(server, base).card().of_adapter(adapter)


def report_of(server: Server, name: str) -> ModelReport:
    """Everything about the model ``name``. Raises `ModelFileNotFound`."""
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


def all_cards(server: Server, *, only_own: bool) -> Iterator[ModelCard]:
    """The cards of all models. ``only_own``: as if there were no upstreams."""
    # The default model first: clients without a wish take the first.
    models = sorted(server.library.models(), key=lambda model: model.name != server.default.name)
    for model in models:
        yield from _cards(server, model, only_own)
    if not only_own:
        names = server.fleet.upstreams.models()
        yield from (_of_upstreams(server, name).card() for name in names if server.is_elsewhere(name))


def _cards(server: Server, model: Model, only_own: bool) -> Iterator[ModelCard]:
    """The model's card, then those of its adapters."""
    card = _card(server, model, only_own)
    yield card
    yield from (card.of_adapter(adapter.name) for adapter in model.entry.adapters)


def _card(server: Server, model: Model, only_own: bool) -> ModelCard:
    """Most of a long catalog is at rest, which is quickly said."""
    name = model.name
    if server.manager.was_wanted(name) or server.pulls.running(name) is not None:
        return (server.report(model) if only_own else _of_library(server, model)).card()
    if model.is_absent and not only_own and server.fleet.upstreams.serving(name):
        return _of_library(server, model).card()
    return ModelCard.at_rest(model, server.created, server.abilities(model))
