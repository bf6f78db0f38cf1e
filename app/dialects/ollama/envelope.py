"""Errors as Ollama tells them: one sentence."""

from __future__ import annotations

import re
from typing import Any

from app.errors import ApiError, error_body

# Fields of OpenAI's requests, which are what is checked, to those that they came from.
_NAMES = {
    "max_tokens": "num_predict",
    "reasoning_effort": "think",
    "repetition_penalty": "repeat_penalty",
    "response_format": "format",
    "truncate_prompt_tokens": "truncate",
}
_NAME = re.compile(rf"\b({'|'.join(_NAMES)})\b")


def envelope(err: ApiError, request_id: str) -> tuple[int, dict[str, Any]]:
    """The status and the body of an error."""
    return err.status, {"error": sentence(err)}


def sentence(err: ApiError) -> str:
    """The error's message, with the names that Ollama's API has for what is wrong."""
    message: str = error_body(err)["error"]["message"]
    return _NAME.sub(lambda match: _NAMES[match[1]], message)
