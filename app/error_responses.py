"""Responses to failures, in the envelope of the API that the client spoke."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from app.database.errors import DatabaseUnavailable
from app.dialects.anthropic.envelope import envelope as anthropic
from app.dialects.ollama.envelope import envelope as ollama
from app.errors import ApiError, error_body, to_api_error
from app.operations import errors as operation_errors
from app.paths import route_path, speaks_anthropic
from app.sse import to_json
from app.telemetry.logs import get_logger
from balancer import errors as balancer_errors
from engines import errors as engine_errors

log = get_logger("http")

Envelope = Callable[[ApiError, str], tuple[int, dict[str, Any]]]
"""The status and the body by which one API tells of an error, in a request with this id."""


def _openai(err: ApiError, request_id: str) -> tuple[int, dict[str, Any]]:
    return err.status, error_body(err)


# By the beginning of the path. All other APIs have OpenAI's.
_ENVELOPES: dict[str, Envelope] = {"/v1/messages": anthropic, "/api/": ollama}


def error_response(err: ApiError, scope: Scope | None) -> Response:
    """The whole response to a request of ``scope``, with Retry-After in whole seconds (at least 1) where one
    is known. Without a scope nothing of the request is known."""
    envelope: Envelope = _openai
    request_id = ""
    if scope is not None:
        envelope = _envelope(scope)
        request_id = scope.get("state", {}).get("request_id", "")
    status, body = envelope(err, request_id)
    headers = dict(err.headers)
    if err.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(err.retry_after)))
    # It may repeat what a client sent, half a surrogate pair for example.
    return Response(to_json(body), status, headers, media_type="application/json")


def _envelope(scope: Scope) -> Envelope:
    path = route_path(scope)
    found = next((each for start, each in _ENVELOPES.items() if path.startswith(start)), None)
    if found is None:
        # Its clients ask for models at the path that OpenAI's ask at.
        return anthropic if speaks_anthropic(scope) else _openai
    return found


def install(app: FastAPI) -> None:
    """Make every failure of ``app`` leave in the envelope, those of the framework included."""
    ours = (engine_errors.EngineError, balancer_errors.BalancerError, operation_errors.OperationError)
    for cls in (
        ApiError,
        DatabaseUnavailable,
        *ours,
        ClientDisconnect,
        RequestValidationError,
        HTTPException,
    ):
        app.add_exception_handler(cls, _on_known_error)
    app.add_exception_handler(Exception, _on_unknown_error)


async def _on_known_error(request: Request, exc: Exception) -> Response:
    err = to_api_error(exc)
    if err.status == 500:
        log.error("request_failed", path=request.url.path, code=err.code, exc_info=exc)
    return error_response(err, request.scope)


async def _on_unknown_error(request: Request, exc: Exception) -> Response:
    # Starlette raises the exception again once we answered, so the server logs it: not twice.
    # It also runs this outside all middleware, hence the header that others get from there.
    err = to_api_error(exc)
    request_id = getattr(request.state, "request_id", None)
    if request_id is not None:
        err.headers["x-request-id"] = request_id
    return error_response(err, request.scope)
