"""The routes under /v1/batches: many requests in a file, answered when nobody else needs the machine."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.batches.schema import BatchList, BatchObject, BatchRequest
from app.database.page_query import PageQuery
from app.routers.admin import BoundedRoute
from app.schemas.common import ERROR_RESPONSES
from app.server import Server

router = APIRouter(
    tags=["Files and batches"],
    route_class=BoundedRoute,
    responses={code: ERROR_RESPONSES[code] for code in (400, 401, 404, 503)},
)

MOST_BATCHES = 100


@router.post("/v1/batches", summary="Have a file of requests answered")
async def create_batch(body: BatchRequest, request: Request) -> BatchObject:
    """The file has a request in each line: `{"custom_id", "method": "POST", "url", "body"}`. It is looked at
    first: `errors` names the lines that are wrong. docs/batches.md has the rest."""
    server: Server = request.app.state.server
    expiry = body.output_expires_after
    batch = await (await server.storage()).batches.create(
        owner=request.state.owner,
        client=request.state.client,
        admin=request.state.admin,
        input_file_id=body.input_file_id,
        endpoint=body.endpoint,
        window=body.completion_window,
        metadata=body.metadata,
        output_life=expiry.seconds if expiry is not None else None,
    )
    return BatchObject.of(batch)


@router.get("/v1/batches", summary="List your batches, the newest first")
async def list_batches(
    request: Request,
    after: Annotated[str | None, Query(description="The id behind which the list goes on.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_BATCHES, description="As many at most.")] = 20,
) -> BatchList:
    server: Server = request.app.state.server
    found = await (await server.storage()).batches.page(request.state.owner, PageQuery(limit, after))
    return BatchList.of(*found)


@router.get("/v1/batches/{batch_id}", summary="Look at one batch")
async def get_batch(batch_id: str, request: Request) -> BatchObject:
    server: Server = request.app.state.server
    return BatchObject.of(await (await server.storage()).batches.get(request.state.owner, batch_id))


@router.post("/v1/batches/{batch_id}/cancel", summary="Cancel a batch")
async def cancel_batch(batch_id: str, request: Request) -> BatchObject:
    """What was answered by then is in its files."""
    server: Server = request.app.state.server
    return BatchObject.of(await (await server.storage()).batches.cancel(request.state.owner, batch_id))
