"""Serving of inference requests: what the routes of all dialects share."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.datastructures import State
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app import json_body
from app.errors import invalid_value
from app.inference.dialect import Dialect
from app.inference.response import AnswerObserver, InferenceResponse
from app.inference.translation import Translated, Translation
from app.inference.wire_request import WireRequest
from app.schemas.unknown_fields import UnknownField
from app.server import Server
from balancer.proxy.hops import read_hops
from balancer.workers.protocol import PARENT_HEADER, RESUME_HEADER, read_resume_point
from engines.errors import RequestError

# Headers about the bytes of a body, and of its answer.
_OF_BODY = frozenset({b"content-type", b"accept-encoding", b"accept"})

Translate = Callable[[Any], Translated | Response]
"""What becomes of the JSON document of another API's request: a translation, or the response itself."""


class BareRoute(APIRoute):
    """A documented route with nothing between it and its function, which takes the request.

    FastAPI's exit stacks, solving of dependencies and a second layer that handles exceptions would be a
    tenth of what passing a request on costs, the layer again with each piece of a stream.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


def event_stream(description: str) -> dict[int | str, dict[str, Any]]:
    """The part of a route's description that says what its answer is, which may be a stream of events."""
    content = {"text/event-stream": {"schema": {"type": "string"}}}
    return {200: {"description": description, "content": content}}


def described_body(schema: type[BaseModel]) -> dict[str, Any]:
    """The part of a route's description that says what its body is, which the route reads itself."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema.__name__}"}}}
    return {"requestBody": {"required": True, "content": content}}


Prepare = Callable[[WireRequest, Any], Awaitable[tuple[WireRequest, Any, AnswerObserver | None]]]
"""Makes of a request, and its JSON, what is served in its place, and says who looks at the answer."""

Begin = Callable[[Server, WireRequest, Any], Awaitable[Response]]
"""Makes of a request, and its JSON, the response."""


async def serve(request: Request, dialect: Dialect[Any], prepare: Prepare | None = None) -> Response:
    """The response to a request in ``dialect``: parsed to a task, or passed on unread if only upstreams have
    its model. What is right or wrong with such a request is theirs to say.

    ``prepare`` is not for workers: their parents have done it.
    """

    async def begin(server: Server, wire: WireRequest, document: Any) -> Response:
        observer = None
        if prepare is not None and not server.is_worker:
            wire, document, observer = await prepare(wire, document)
        return _begin(server, dialect, wire, document, request.state, observer=observer)

    return await _with_document(request, begin)


async def serve_translated(request: Request, translate: Translate) -> Response:
    """The response to a request of another API: that of a dialect to what ``translate`` makes of it,
    translated back."""

    async def begin(server: Server, wire: WireRequest, document: Any) -> Response:
        try:
            asked = translate(document)
        except ValidationError as error:
            raise invalid_value(error, document) from None
        return asked if isinstance(asked, Response) else _begin_translated(server, asked, wire, request.state)

    return await _with_document(request, begin)


async def serve_form(request: Request, translate: Callable[[Request], Awaitable[Translated]]) -> Response:
    """As `serve_translated`, to a request that is no JSON, which ``translate`` reads itself."""
    server: Server = request.app.state.server
    wire = await _wire_request(request, is_worker=server.is_worker)
    return _begin_translated(server, await translate(request), wire, request.state)


async def _with_document(request: Request, begin: Begin) -> Response:
    """What ``begin`` makes of a request whose JSON is read."""
    server: Server = request.app.state.server
    wire = await _wire_request(request, is_worker=server.is_worker)
    if json_body.is_small(wire.body):
        return await begin(server, wire, json_body.parse(wire.body))
    # One after the other: each is a few steps that hold the loop for a moment, which add up side by side.
    async with server.large_bodies:
        return await begin(server, wire, await json_body.parse_large(wire.body))


def _begin_translated(server: Server, asked: Translated, wire: WireRequest, client: State) -> Response:
    # Backends are told of this body, not of the client's.
    headers = [header for header in wire.headers if header[0] not in _OF_BODY]
    wire = replace(
        wire,
        path=asked.path,
        body=json.dumps(asked.document).encode(),
        headers=[*headers, (b"content-type", b"application/json")],
    )
    return _begin(server, asked.dialect, wire, asked.document, client, asked.answer, unknown=asked.unknown)


def _begin(
    server: Server,
    dialect: Dialect[Any],
    wire: WireRequest,
    document: Any,
    client: State,
    translation: Translation | None = None,
    observer: AnswerObserver | None = None,
    unknown: tuple[UnknownField, ...] = (),
) -> Response:
    """``client`` is what `AuthMiddleware` says of it."""
    inference, ignored = server.intake.begin(
        dialect, wire, document, client=client.client, admin=client.admin, unknown=unknown
    )
    return InferenceResponse(inference, ignored, observer, translation)


async def _wire_request(request: Request, *, is_worker: bool) -> WireRequest:
    """The request as it came. Only a worker's parent may ask for comments, or for an answer to go on."""
    body, headers = await request.body(), request.headers
    for_parent = is_worker and headers.get(PARENT_HEADER.decode()) == "1"
    resume_point = None
    if for_parent:
        try:
            resume_point, body = read_resume_point(headers.get(RESUME_HEADER.decode()), body)
        except ValueError as error:
            raise RequestError(str(error)) from None
    state = request.state
    return WireRequest(
        request_id=state.request_id,
        # All backends that an answer comes from give it the one id.
        answer_id=state.request_id if for_parent else state.answer_id,
        # The route's own: what the client wrote may have a line end at its end, or a proxy's prefix in front.
        path=request.scope["route"].path,
        body=body,
        headers=headers.raw,
        hops=read_hops(headers.raw),
        for_parent=for_parent,
        resume_point=resume_point,
    )
