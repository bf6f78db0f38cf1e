"""Errors as Ollama tells them: one sentence."""

from __future__ import annotations

from typing import Any

from app.errors import ApiError, error_body


def envelope(err: ApiError, request_id: str) -> tuple[int, dict[str, Any]]:
    """The status and the body of an error."""
    return err.status, {"error": error_body(err)["error"]["message"]}
