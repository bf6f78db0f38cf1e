"""Stored files: what is known of each, and what they may be for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from app.errors import ApiError

BATCH, BATCH_OUTPUT, USER_DATA = "batch", "batch_output", "user_data"
# What clients may upload. What else OpenAI has is refused by name.
PURPOSES = (BATCH, USER_DATA)
_ELSEWHERE = {
    "assistants": "the Assistants API is not served here",
    "batch_output": "only batches make such files",
    "evals": "evals are not served here",
    "fine-tune": "fine-tuning is not served here",
    "vision": "send pictures in the messages themselves",
}
SHORTEST_LIFE, LONGEST_LIFE = 3600, 2592000


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is kept for ``owner``. Times in Unix seconds; ``bytes`` is its size."""

    id: str
    owner: str
    purpose: str
    filename: str
    bytes: int
    created_at: int
    expires_at: int | None = None


def new_file_id() -> str:
    return f"file-{uuid4().hex}"


def check_purpose(purpose: str | None) -> str:
    """Raises `ApiError` for what no file can be for here."""
    if purpose is None:
        raise bad_field("purpose", f"is missing: give one of {', '.join(PURPOSES)}")
    if purpose not in PURPOSES:
        why = _ELSEWHERE.get(purpose, "there is no such purpose")
        raise bad_field("purpose", f"cannot be {purpose[:64]!r} ({why}): give one of {', '.join(PURPOSES)}")
    return purpose


def check_life(anchor: Any, seconds: Any, param: str = "expires_after") -> int | None:
    """The seconds of an ``expires_after``; None without one. Raises `ApiError`."""
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise bad_field(f"{param}.anchor", "must be 'created_at'")
    try:
        life = int(seconds)
    except (TypeError, ValueError):
        life = -1
    if not SHORTEST_LIFE <= life <= LONGEST_LIFE:
        raise bad_field(f"{param}.seconds", f"must be a number from {SHORTEST_LIFE} to {LONGEST_LIFE}")
    return life


def bad_field(param: str, what: str) -> ApiError:
    return ApiError(400, "invalid_request_error", f"`{param}` {what}.", param)
