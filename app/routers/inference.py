"""What the inference routes share: a call, and the exchange that serves it."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol, TypeVar

from fastapi import Request
from starlette.responses import Response

from app.convert.defaults import with_defaults
from app.exchange import Exchange
from app.house import House
from app.schemas.common import SamplingFields
from app.telemetry.inference import InferenceRecord
from balancer.backend import Call, Reply
from engines.base import Engine
from engines.library import Model


class Run(Protocol):
    """Serves a request on a local engine."""

    async def __call__(self, engine: Engine, record: InferenceRecord, request_id: str) -> Reply: ...


Body = TypeVar("Body", bound=SamplingFields)


def find_model(request: Request, body: Body) -> tuple[Model, Body, str | None]:
    """The model that ``body`` names, ``body`` with that model's defaults where it says nothing, and the
    LoRA adapter, if ``body`` names one of those that the catalog gives the model.

    Raises `ModelFileNotFound`.
    """
    house: House = request.app.state.house
    model, adapter = house.library.served(body.model)
    return model, with_defaults(body, model.entry.sampling), adapter


async def exchange(request: Request, model: str, body: SamplingFields, run: Run) -> Response:
    """Serve ``body`` on a backend of ``model``: ``run`` gets the engine, the record and the request id."""
    house: House = request.app.state.house
    request_id: str = request.state.request_id
    record = house.record(model, request.url.path, request_id)

    call = Call(
        request_id=request_id,
        model=model,
        path=request.url.path,
        body=await request.body(),
        stream=body.stream,
        run=partial(run, record=record, request_id=request_id),
        keep_alive=body.keep_alive,
    )
    return Exchange(house.balancer, call, record)


STREAM_EXAMPLE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream: true` as server-sent events ending with `data: [DONE]`",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
