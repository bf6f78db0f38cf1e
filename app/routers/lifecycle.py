"""The routes that load and unload models while the server runs."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse

from app.routers.admin import BoundedRoute, admin_only
from app.schemas.common import ERROR_RESPONSES
from app.schemas.models import Accepted, LoadRequest, ModelReport
from app.server import Server
from engines.lifecycle.states import LoadOptions

router = APIRouter(
    tags=["Models"],
    dependencies=[admin_only],
    route_class=BoundedRoute,
    responses={code: ERROR_RESPONSES[code] for code in (400, 401, 403, 404, 409, 503)},
)

_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": Accepted, "description": "`wait` was false: the load goes on"}
}


@router.post("/v1/models/load", summary="Load a model", response_model=ModelReport, responses=_ACCEPTED)
async def load_model(body: LoadRequest, request: Request) -> Any:
    """200 when it is ready. With `wait: false` 202 at once; the status URL says how far it is.

    A model that is loaded already is left as it is, unless it is to be loaded otherwise, as you say or as its
    file or its entry in the catalog says by now: then it is loaded again if nobody uses it, else the answer
    is 409. What cannot be loaded at all is 400 before any other model makes way.
    """
    server: Server = request.app.state.server
    model = await server.find(body.model_name, body.model_path)
    options = LoadOptions(
        engine=None if body.engine == "auto" else body.engine,
        quantization=body.quantization,
        context_length=body.context_length,
    )
    await server.loads.load(model, options, keep_alive=body.keep_alive, pin=body.pin, wait=body.wait)
    if body.wait:
        return server.report(model)
    url = f"/v1/models/{quote(model.name)}/status"
    accepted = Accepted(model=model.name, state=server.report(model).state, status_url=url)
    return JSONResponse(accepted.model_dump(), 202, {"Location": url})


@router.delete("/v1/models/{model:path}", summary="Unload a model")
async def unload_model(
    model: str,
    request: Request,
    force: Annotated[
        bool, Query(description="Do not wait for running requests: they fail. Also unloads a pinned model.")
    ] = False,
) -> ModelReport:
    """Takes no more requests, lets the running ones end, and frees the memory. Its files stay.

    A pull that is under way is stopped; what arrived is kept. A later request loads the model again.
    """
    server: Server = request.app.state.server
    found = server.library.find(model)
    await server.unload(found, force=force)
    return server.report(found)
