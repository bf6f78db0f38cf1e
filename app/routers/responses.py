"""The routes of OpenAI's Responses API."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from app.dialects.openai.responses.dialect import INPUT_TOKENS_OF_RESPONSE, RESPONSES
from app.dialects.openai.responses.document import (
    DeletedResponse,
    ResponseDocument,
    ResponseInputTokens,
    ResponseItems,
)
from app.dialects.openai.responses.schema import ResponseRequest
from app.inference.response import AnswerObserver
from app.inference.wire_request import WireRequest
from app.response_store.exchange import ResponseExchange
from app.response_store.record import conversation
from app.routers.serving import BareRoute, described_body, event_stream, serve
from app.schemas.common import ERROR_RESPONSES
from app.server import Server
from app.sse import to_json
from engines.errors import RequestError, UnsupportedFeature

router = APIRouter(tags=["Responses"])
_bare = APIRouter(tags=["Responses"], route_class=BareRoute)

BODIES: tuple[type[BaseModel], ...] = (ResponseRequest,)

_STREAM = event_stream("The response; with `stream: true` as server-sent events ending with `data: [DONE]`")
_ABSENT: dict[int | str, dict[str, Any]] = {404: ERROR_RESPONSES[404]}
_MOST_ITEMS = 100


@_bare.post(
    "/v1/responses",
    summary="Answer an input with a response",
    response_model=ResponseDocument,
    responses={**ERROR_RESPONSES, **_STREAM},
    openapi_extra=described_body(ResponseRequest),
)
async def create_response(request: Request) -> Response:
    """OpenAI's Responses API, which Codex and the Agents SDK speak. Tools of the types `function`, `custom`
    and `namespace`; what OpenAI runs itself (`web_search`, …) is left out. Responses are stored, for
    `previous_response_id`, unless `store` is false."""
    return await serve(request, RESPONSES, partial(_prepare, request, keeps=True))


@_bare.post(
    "/v1/responses/input_tokens",
    summary="Count the tokens of the prompt that an input becomes",
    response_model=ResponseInputTokens,
    responses=ERROR_RESPONSES,
    openapi_extra=described_body(ResponseRequest),
)
async def count_response_input_tokens(request: Request) -> Response:
    """Of the same body as a response: what `usage.input_tokens` of it would be."""
    return await serve(request, INPUT_TOKENS_OF_RESPONSE, partial(_prepare, request, keeps=False))


router.routes.extend(_bare.routes)


@router.get(
    "/v1/responses/{response_id}",
    summary="Look at a stored response",
    response_model=ResponseDocument,
    responses=_ABSENT,
)
async def get_response(
    response_id: str,
    request: Request,
    stream: Annotated[bool, Query(description="Only false: nothing runs in the background.")] = False,
) -> Response:
    if stream:
        raise UnsupportedFeature("a stored response is not streamed: leave `stream` out", param="stream")
    server: Server = request.app.state.server
    record = await server.responses.get(request.state.owner, response_id)
    return Response(record.response, media_type="application/json")


@router.delete("/v1/responses/{response_id}", summary="Delete a stored response", responses=_ABSENT)
async def delete_response(response_id: str, request: Request) -> DeletedResponse:
    """Responses that follow it cannot be followed any more."""
    server: Server = request.app.state.server
    await server.responses.delete(request.state.owner, response_id)
    return DeletedResponse(id=response_id)


@router.post("/v1/responses/{response_id}/cancel", summary="Not possible here", responses=_ABSENT)
async def cancel_response(response_id: str, request: Request) -> Response:
    """Nothing runs in the background: to cancel a response, close its connection."""
    server: Server = request.app.state.server
    await server.responses.get(request.state.owner, response_id)
    raise RequestError(
        "only responses in the background can be cancelled, and there are none here: to cancel one that is "
        "streamed, close its connection",
        param="response_id",
    )


@router.get(
    "/v1/responses/{response_id}/input_items",
    summary="List the items that a stored response was asked with",
    response_model=ResponseItems,
    responses=_ABSENT,
)
async def list_input_items(
    response_id: str,
    request: Request,
    after: Annotated[str | None, Query(description="The id of the item that the list begins behind.")] = None,
    limit: Annotated[int, Query(ge=1, le=_MOST_ITEMS, description="Items at once.")] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="desc: the last item first.")] = "desc",
) -> Response:
    """With those of the responses that it follows, and their output."""
    records = await _exchange(request).records(response_id)
    items = [*conversation(records[:-1]), *records[-1].input_items()]
    if order == "desc":
        items.reverse()
    ids = [item.get("id") for item in items]
    if after is not None and after not in ids:
        raise RequestError(f"there is no item {after[:80]!r} in this list", param="after")
    begin = 0 if after is None else ids.index(after) + 1
    page = items[begin : begin + limit]
    ends = {"first_id": page[0].get("id"), "last_id": page[-1].get("id")} if page else {}
    more = {"has_more": begin + limit < len(items)}
    told = {"object": "list", "data": page, "first_id": None, "last_id": None, **ends, **more}
    return Response(to_json(told), media_type="application/json")


async def _prepare(
    request: Request, wire: WireRequest, document: Any, *, keeps: bool
) -> tuple[WireRequest, Any, AnswerObserver | None]:
    exchange = _exchange(request)
    whole = await exchange.expand(wire, document)
    return *whole, exchange.keeper(document) if keeps else None


def _exchange(request: Request) -> ResponseExchange:
    server: Server = request.app.state.server
    return ResponseExchange(server.responses, request.state.owner, server.settings.max_request_bytes)
