"""The routes for the LoRA adapters of a model, and vLLM's names for them."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse

from app.routers.admin import BoundedRoute, admin_only
from app.schemas.adapters import AdapterCard, AdapterList, AdapterRemoved, LoadLora, NewAdapter, UnloadLora
from app.schemas.common import ERROR_RESPONSES
from app.server import Server
from engines.models.model import Model, adapter_name

router = APIRouter(
    tags=["Models"],
    route_class=BoundedRoute,
    responses={code: ERROR_RESPONSES[code] for code in (400, 401, 403, 404, 409, 503)},
)


@router.get("/v1/models/{model:path}/adapters", summary="List the LoRA adapters of a model")
async def list_adapters(model: str, request: Request) -> AdapterList:
    server: Server = request.app.state.server
    found = server.library.find(model)
    added = server.library.adapters.added_to(found.name)
    return AdapterList(
        data=[AdapterCard.of(found.name, each, is_added=each in added) for each in found.entry.adapters]
    )


@router.post(
    "/v1/models/{model:path}/adapters",
    summary="Add a LoRA adapter to a model",
    status_code=201,
    dependencies=[admin_only],
)
async def add_adapter(model: str, body: NewAdapter, request: Request) -> AdapterCard:
    """On all of its instances, until the server is started again; requests name it `model:adapter`. What
    does not fit the model is refused before anything changes. A model that is not loaded gets it when it is.
    """
    server: Server = request.app.state.server
    found = server.library.on_disk(model)
    entry = await server.adapters.add(found, body.name, body.path, body.scale)
    return AdapterCard.of(found.name, entry, is_added=True)


@router.delete(
    "/v1/models/{model:path}/adapters/{adapter:path}",
    summary="Take a LoRA adapter from a model",
    dependencies=[admin_only],
)
async def remove_adapter(model: str, adapter: str, request: Request) -> AdapterRemoved:
    """It takes no more requests; those that run end first. Its file stays. One of models.yaml is taken away
    there."""
    server: Server = request.app.state.server
    found = server.library.find(model)
    own = await server.adapters.remove(found, adapter)
    return AdapterRemoved(message=f"{found.name} lost {own}", id=adapter_name(found.name, own), name=own)


@router.post(
    "/v1/load_lora_adapter",
    summary="Add a LoRA adapter, as vLLM has it",
    dependencies=[admin_only],
    response_class=PlainTextResponse,
)
async def load_lora(body: LoadLora, request: Request) -> str:
    """To the default model, unless `model` names another."""
    server: Server = request.app.state.server
    await server.adapters.add(_model(server, body.model), body.lora_name, body.lora_path, 1.0)
    return f"Success: LoRA adapter '{body.lora_name}' added successfully."


@router.post(
    "/v1/unload_lora_adapter",
    summary="Take a LoRA adapter away, as vLLM has it",
    dependencies=[admin_only],
    response_class=PlainTextResponse,
)
async def unload_lora(body: UnloadLora, request: Request) -> str:
    """From the model that has it, unless `model` says from which."""
    server: Server = request.app.state.server
    has = server.library.get(body.lora_name) if body.model is None else None
    own = await server.adapters.remove(has or _model(server, body.model), body.lora_name)
    return f"Success: LoRA adapter '{own}' removed successfully."


def _model(server: Server, name: str | None) -> Model:
    """Raises `ModelFileNotFound`."""
    return server.library.on_disk(server.default.name if name is None else name)
