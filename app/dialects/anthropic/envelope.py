"""Anthropic's envelope of errors."""

from __future__ import annotations

from typing import Any

from app.errors import ApiError, error_body
from engines.errors import ContextLengthExceeded

OVERLOADED = 529
"""Anthropic's status for what is 503 in other APIs."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    OVERLOADED: "overloaded_error",
}


def envelope(err: ApiError, request_id: str) -> tuple[int, dict[str, Any]]:
    """The status and the body for ``err``, in a request with this id."""
    status = OVERLOADED if err.status == 503 else err.status
    default = "api_error" if status >= 500 else "invalid_request_error"
    told = error_body(err)["error"]
    code, param = told.pop("code"), told["param"]
    cause = err.__cause__
    if isinstance(cause, ContextLengthExceeded) and not cause.completion:
        # In Anthropic's words, by which clients know how much shorter a conversation has to be.
        told["message"] = (
            f"prompt is too long: {cause.needed} tokens > {cause.context_length} maximum. {told['message']}"
        )
    elif param is not None and param not in told["message"]:
        told["message"] = f"{param}: {told['message']}"  # Anthropic's has no field of its own for it
    error = {**told, "type": _TYPES.get(status, default), "details": {"error_code": code}}
    return status, {"type": "error", "error": error, "request_id": request_id or None}
