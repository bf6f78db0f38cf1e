"""What the inference routes share: a call, and the exchange that serves it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from app.convert.continuation import wants_tokens
from app.convert.defaults import with_defaults
from app.inference.response import InferenceResponse
from app.schemas.common import SamplingFields
from app.server import Server
from app.telemetry.inference import InferenceRecord
from balancer.call import Call, Reply, ResumePoint
from balancer.dispatch import Dispatch
from engines.base import Engine
from engines.models.model import Model

Handler = Callable[[Request], Awaitable[Response]]


class Run(Protocol):
    """Serves a request on a local engine, from a continuation on if it was begun elsewhere."""

    def __call__(
        self, engine: Engine, record: InferenceRecord, request_id: str, continuation: ResumePoint | None
    ) -> Awaitable[Reply]: ...


Body = TypeVar("Body", bound=SamplingFields)


def find_model(request: Request, body: Body) -> tuple[Model, Body, str | None]:
    """The model that ``body`` names, ``body`` with that model's defaults where it says nothing, and the
    LoRA adapter, if ``body`` names one of those that the catalog gives the model.

    Raises `ModelFileNotFound`.
    """
    server: Server = request.app.state.server
    model, adapter = server.served(body.model)
    return model, with_defaults(body, model.entry.sampling), adapter


async def exchange(
    request: Request, model: str, body: SamplingFields, run: Run, *, resumable: bool = False
) -> Response:
    """Serve ``body`` on a backend of ``model``: ``run`` gets the engine, the record, the request id and what
    was answered before. ``resumable``: another backend can go on with its stream."""
    server: Server = request.app.state.server
    request_id: str = request.state.request_id
    record = server.record(model, request.url.path, request_id)
    call = Call(
        request_id=request_id,
        model=model,
        path=request.url.path,
        body=await request.body(),
        stream=body.stream,
        run=lambda engine, continuation: run(engine, record, request_id, continuation),
        headers=request.headers.raw,
        resumable=resumable,
        priority=body.priority,
        conversation=lambda: body.model_dump_json(include={"messages", "prompt"}),
        # In a cluster its parent decides how long a model stays.
        keep_alive=None if server.is_instance else body.keep_alive,
    )
    serving = Dispatch(server.balancer, call, server.failovers)
    return InferenceResponse(serving, call, record, tells_errors=not wants_tokens(request))


class RelayRoute(APIRoute):
    """A route that passes on unread what asks for a model that only upstreams have.

    What is right or wrong with such a request is theirs to say, and reading it would be most of its cost.
    """

    def get_route_handler(self) -> Any:
        handle: Handler = super().get_route_handler()

        async def relay_or_handle(request: Request) -> Response:
            return await relayed(request) or await handle(request)

        return relay_or_handle


async def relayed(request: Request) -> Response | None:
    """The exchange with an upstream; None unless the request names a model of theirs alone."""
    server: Server = request.app.state.server
    if not server.fleet.upstreams:
        return None
    body = await request.body()
    try:
        wanted = json.loads(body)
    except ValueError:
        return None
    model = wanted.get("model") if isinstance(wanted, dict) else None
    if not isinstance(model, str) or not server.is_elsewhere(model):
        return None
    request_id: str = request.state.request_id
    path = request.url.path
    record = server.record(model, path, request_id)
    call = Call(
        request_id=request_id,
        model=model,
        path=path,
        body=body,
        stream=wanted.get("stream") is True,
        headers=request.headers.raw,
        conversation=lambda: str(wanted.get("messages") or wanted.get("prompt")),
    )
    return InferenceResponse(Dispatch(server.balancer, call, server.failovers), call, record)


STREAM_EXAMPLE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream: true` as server-sent events ending with `data: [DONE]`",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
