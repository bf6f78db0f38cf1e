"""POST /v1/models/pull: download a model, with progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from app.inference.disconnect import while_connected
from app.routers.admin import BoundedRoute, admin_only
from app.schemas.common import ERROR_RESPONSES
from app.schemas.models import Download, PullBody, Pulled
from app.server import Server
from app.sse import EventResponse, sse
from engines.models.pull.jobs import PullJob, PullWatch
from engines.models.pull.puller import PullProgress

router = APIRouter(
    tags=["Models"],
    dependencies=[admin_only],
    route_class=BoundedRoute,
    responses={code: ERROR_RESPONSES[code] for code in (400, 401, 403, 404, 409, 503)},
)

# Clients draw a bar; more events than this a second would only cost.
EVENT_DISTANCE = 0.2

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events with `status`, `completed`, `total`, `speed`, `eta_seconds`; the last has "
        "`status: success`. With `stream: false` only that.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.post("/v1/models/pull", summary="Download a model", response_model=Pulled, responses=_STREAM)
async def pull_model(body: PullBody, request: Request) -> Any:
    """Progress as server-sent events, then the result, or an error. What could not be served here is refused
    (`cannot_run`, 409) before anything is downloaded, unless `force` is true.

    Several clients may watch one pull; it stops when the last of them leaves. What arrived is kept, and
    the next pull goes on from there.
    """
    server: Server = request.app.state.server
    include = tuple(body.include or ())
    job = server.pulls.start(body.model_name, body.source, body.revision, include, force=body.force)
    watch = job.watch()
    if body.stream:
        return EventResponse(PullEvents(watch))
    return WholePull(watch)


class PullEvents:
    """A watched pull as server-sent events."""

    def __init__(self, watch: PullWatch) -> None:
        self._watch = watch
        self.name = watch.job.name
        self._clock = asyncio.get_running_loop().time
        self._not_before = 0.0
        self._told = False

    def __aiter__(self) -> PullEvents:
        return self

    async def __anext__(self) -> bytes:
        if self._told:
            raise StopAsyncIteration
        try:
            await asyncio.sleep(self._not_before - self._clock())
            progress = await anext(self._watch)
        except StopAsyncIteration:
            self._told = True
            return self._last(await pulled(self._watch.job))
        self._not_before = self._clock() + EVENT_DISTANCE
        return self._event(progress)

    def close(self) -> None:
        self._watch.close()

    def _event(self, progress: PullProgress) -> bytes:
        return sse(Download.of(progress).model_dump())

    def _last(self, done: Pulled) -> bytes:
        return sse(done.model_dump())


class WholePull(Response):
    """One answer when the pull is done; a client that leaves before stops watching it."""

    def __init__(self, watch: PullWatch, tell: Callable[[Pulled], Any] = Pulled.model_dump) -> None:
        """``tell`` makes the document."""
        super().__init__()
        self._watch = watch
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(receive, self._serve(scope, receive, send), self._watch.close)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse(self._tell(await pulled(self._watch.job)))(scope, receive, send)


async def pulled(job: PullJob) -> Pulled:
    """The result of ``job``. Raises `PullError`."""
    return Pulled.of(job.name, await job.result())
