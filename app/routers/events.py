"""GET /v1/system/events: what happens to models, as it happens."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.server import Server
from app.sse import EventResponse, sse
from engines.lifecycle.events import Subscription

router = APIRouter(tags=["System"])

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Endless `model` events: `model`, `from`, `to`, `at` (Unix seconds), `detail`",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get("/v1/system/events", summary="Follow the models' states", response_model=None, responses=_STREAM)
async def system_events(request: Request) -> Response:
    """One server-sent event for each change of a model's state, from now on."""
    server: Server = request.app.state.server
    return EventResponse(ModelEvents(server.manager.events.subscribe()))


class ModelEvents:
    """Changes of state as server-sent events."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def __aiter__(self) -> ModelEvents:
        return self

    async def __anext__(self) -> bytes:
        event = await anext(self._subscription)
        data = {
            "model": event.name,
            "from": event.previous,
            "to": event.state,
            "at": round(event.at, 3),
            "detail": event.detail,
        }
        return sse(data, "model")

    def close(self) -> None:
        self._subscription.close()
