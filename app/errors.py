"""Failures as clients see them: one table from our exceptions to statuses and codes.

Engines and the balancer raise in their own words; only this module knows what they mean over HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.database import errors as database_errors
from app.operations import errors as operation_errors
from balancer import errors as balancer_errors
from engines import errors as engine_errors
from engines.lifecycle import errors as manager_errors
from engines.models import store
from engines.models.pull import puller

# A 429 or 503 always says when to come back; this many seconds where whoever raised it did not know.
DEFAULT_RETRY_AFTER = 1.0
# Telling what is wrong takes longer than finding it: of more mistakes than this, none is named.
MOST_ERRORS = 256
# Characters of a message, and of the name of a field, that are told: both may repeat what was sent.
MOST_CHARACTERS = 2000
# After a hub was out of reach, in seconds.
PULL_RETRY = 10.0

_TABLE: dict[type[Exception], tuple[int, str]] = {
    engine_errors.RequestError: (400, "invalid_request_error"),
    engine_errors.ContextLengthExceeded: (400, "context_length_exceeded"),
    engine_errors.UnsupportedFeature: (400, "unsupported_feature"),
    engine_errors.EngineError: (500, "engine_error"),
    engine_errors.CannotLoad: (400, "unsupported_feature"),
    engine_errors.BadModelFile: (400, "invalid_request_error"),
    engine_errors.ModelFileNotFound: (404, "model_not_found"),
    store.PathNotAllowed: (403, "path_not_allowed"),
    puller.PullError: (400, "pull_failed"),
    puller.PullRefused: (409, "cannot_run"),
    manager_errors.ModelConflict: (409, "model_conflict"),
    manager_errors.InsufficientMemory: (503, "insufficient_memory"),
    manager_errors.NeverFits: (400, "insufficient_memory"),
    balancer_errors.UnknownModel: (404, "model_not_found"),
    balancer_errors.QueueFull: (429, "queue_full"),
    balancer_errors.NoBackend: (503, "no_backend"),
    balancer_errors.ModelLoading: (503, "model_loading"),
    balancer_errors.NoRoom: (503, "insufficient_memory"),
    # An upstream that is there and answers with what is of no use is 502: to ask again hardly helps, somebody
    # has to mend it. One that is not there, broke off or is late is 503, as another time may be better.
    balancer_errors.BadAnswer: (502, "bad_gateway"),
    balancer_errors.BackendFailed: (503, "no_backend"),
    balancer_errors.LoopDetected: (508, "loop_detected"),
    balancer_errors.BalancerError: (503, "no_backend"),
    operation_errors.UnknownInstance: (404, "instance_not_found"),
    operation_errors.UnknownUpstream: (404, "upstream_not_found"),
    operation_errors.UnknownAdapter: (404, "adapter_not_found"),
    operation_errors.AdapterExists: (409, "adapter_exists"),
    operation_errors.UpstreamExists: (409, "upstream_exists"),
    operation_errors.UpstreamNotAllowed: (403, "upstream_not_allowed"),
    operation_errors.TooManyUpstreams: (409, "too_many_upstreams"),
    operation_errors.RestartFailed: (503, "restart_failed"),
    operation_errors.CannotRestart: (500, "restart_failed"),
    database_errors.DatabaseUnavailable: (503, "storage_unavailable"),
    # Nobody is left to read the answer; the status only keeps it out of the server's faults.
    ClientDisconnect: (400, "client_disconnected"),
}

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_HTTP_CODES = {
    401: "invalid_api_key",
    403: "insufficient_scope",
    404: "not_found",
    405: "method_not_allowed",
    409: "model_conflict",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    503: "unavailable",
}

_HTTP_MESSAGES = {
    404: "There is no such route. GET /docs lists the routes.",
    405: "This route does not accept this method.",
}


class ApiError(Exception):
    """A failure as the client sees it.

    ``type`` is OpenAI's coarse class and follows from the status unless given. ``retry_after`` is in
    seconds. ``extra`` joins the error object; ``headers`` join the response.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        type: str | None = None,
        retry_after: float | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.type = type or _type_of(status)
        self.retry_after = retry_after
        self.extra: dict[str, Any] = dict(extra or {})
        self.headers: dict[str, str] = dict(headers or {})


def to_api_error(exc: Exception) -> ApiError:
    """What the client is told about ``exc``. An exception we do not know says nothing of its details."""
    if isinstance(exc, ApiError):
        return exc
    if isinstance(exc, RequestValidationError):
        return invalid_request(exc.errors(), exc.body)
    if isinstance(exc, HTTPException):
        return _from_http(exc)
    if isinstance(exc, puller.PullError) and exc.retryable:
        return ApiError(503, "pull_failed", exc.message, retry_after=PULL_RETRY)
    cause = exc.reason if isinstance(exc, balancer_errors.CannotServe) else exc
    for cls in type(cause).__mro__:
        if cls in _TABLE:
            error = _from_table(exc, *_TABLE[cls])
            error.__cause__ = cause
            return error
    return ApiError(500, "internal_error", "The server failed to answer this request. Its log says why.")


def error_body(err: ApiError) -> dict[str, Any]:
    """OpenAI's envelope, for a response's body or for an SSE error event."""
    error = {"message": _short(err.message), "type": err.type, "param": err.param, "code": err.code}
    if err.param is not None:
        error["param"] = _short(err.param)
    return {"error": error | err.extra}


def invalid_value(error: ValidationError, body: object = None) -> ApiError:
    """The 400 for what pydantic found wrong with ``body``, the parsed JSON."""
    if error.error_count() > MOST_ERRORS:
        return ApiError(
            400, "invalid_request_error", f"More than {MOST_ERRORS} things in the body are wrong."
        )
    # As FastAPI tells where something is: a field may be called `query`.
    found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
    return invalid_request(found, body)


def invalid_request(errors: Sequence[Mapping[str, Any]], body: object = None) -> ApiError:
    """The 400 for what pydantic found wrong (``exc.errors()``) with ``body``, the parsed JSON.

    Pydantic reports each branch of a union apart and puts the branch's name into the location.
    ``body`` tells those names from fields, so that ``param`` is a path a client can follow.
    """
    found = [(_path(error, body), error) for error in errors]
    first = found[0][0]
    # Of the branches of one union, the one that came furthest is the one the client meant.
    deepest = max((path for path, _ in found if path[: len(first)] == first), key=len)
    messages = dict.fromkeys(_message(error) for path, error in found if path == deepest)
    param = ".".join(deepest) or None
    text = ", or: ".join(messages)
    return ApiError(400, "invalid_request_error", f"{param}: {text}" if param else text, param)


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def _type_of(status: int) -> str:
    return _TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")


def _from_table(exc: Exception, status: int, code: str) -> ApiError:
    retry_after = getattr(exc, "retry_after", None)
    if retry_after is None and status in (429, 503):
        retry_after = DEFAULT_RETRY_AFTER
    extra: dict[str, Any] = {}
    if isinstance(exc, operation_errors.OperationError):
        extra = exc.details
    if isinstance(exc, balancer_errors.ModelLoading):
        extra["loading"] = {"state": exc.state, "progress": exc.progress, "eta_seconds": exc.eta_seconds}
    message = getattr(exc, "message", None) or "The request was not served."
    return ApiError(status, code, message, getattr(exc, "param", None), retry_after=retry_after, extra=extra)


def _from_http(exc: HTTPException) -> ApiError:
    status = exc.status_code
    message = str(exc.detail)
    if message == _phrase(status):
        message = _HTTP_MESSAGES.get(status, message)
    default = "internal_error" if status >= 500 else "invalid_request_error"
    return ApiError(status, _HTTP_CODES.get(status, default), message, headers=exc.headers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _path(error: Mapping[str, Any], body: object) -> tuple[str, ...]:
    """Where the error is, as steps that exist in ``body`` (the last one may be what is missing)."""
    place = tuple(error["loc"])
    if error["type"] == "json_invalid":
        return ()
    if place and place[0] in ("query", "path", "header", "cookie"):
        return tuple(str(step) for step in place[1:])
    if place and place[0] == "body":
        place = place[1:]
    path: list[str] = []
    node: Any = body
    for index, step in enumerate(place):
        if _leads(node, step):
            node = node[step]
        elif index < len(place) - 1 or error["type"] != "missing":
            continue
        path.append(str(step))
    return tuple(path)


def _leads(node: object, step: object) -> bool:
    if isinstance(node, list):
        return isinstance(step, int) and step < len(node)
    return isinstance(node, Mapping) and step in node


def _message(error: Mapping[str, Any]) -> str:
    """Pydantic's message, in words that make sense to someone who sent JSON."""
    kind, message = error["type"], str(error["msg"])
    if kind == "extra_forbidden":
        return "there is no such field"
    if kind == "union_tag_invalid":
        found = error.get("ctx", {})
        named = str(found.get("discriminator")).strip("'")
        return f"its {named} {found.get('tag')!r} is none of {found.get('expected_tags')}"
    if kind == "json_invalid":
        return f"The body is not valid JSON: {error.get('ctx', {}).get('error', message)}."
    if tuple(error["loc"]) in ((), ("body",)):
        if kind == "missing":
            return "A JSON body is required."
        if kind in ("model_attributes_type", "model_type", "dict_type"):
            return "The body must be a JSON object, sent with Content-Type: application/json."
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
