"""Models in Anthropic's form: a page of a list, and one alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from app.errors import ApiError
from app.schemas.models import ModelCard

_FEWEST, _USUAL, _MOST = 1, 20, 1000
# Cards that are made at once.
_STEP = 200


def model_info(card: ModelCard) -> dict[str, Any]:
    return {
        "type": "model",
        "id": card.id,
        "display_name": card.id,
        "created_at": datetime.fromtimestamp(card.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": card.context_length,
        "max_tokens": card.context_length,
    }


async def model_page(cards: Iterable[ModelCard], query: Mapping[str, str]) -> dict[str, Any]:
    """The page that ``query`` asks for, of those ``cards`` that answer messages. Raises `ApiError`."""
    limit, after, before = _limit(query.get("limit")), query.get("after_id"), query.get("before_id")
    found: deque[ModelCard] = deque()
    has_more = False
    is_behind = after is None
    # In steps: a catalog may have tens of thousands of models, and other requests are not to wait.
    for number, card in enumerate(cards):
        if number % _STEP == _STEP - 1:
            await asyncio.sleep(0)
        if card.capabilities is not None and "chat" not in card.capabilities:
            continue
        if card.id == before:
            break
        if is_behind:
            found.append(card)
        is_behind = is_behind or card.id == after
        if len(found) > limit:
            has_more = True
            if before is None:
                found.pop()
                break
            found.popleft()  # those right in front of it are asked for
    ids = [card.id for card in found]
    return {
        "data": [model_info(card) for card in found],
        "has_more": has_more,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
    }


def _limit(text: str | None) -> int:
    if text is None:
        return _USUAL
    if not (text.isascii() and text.isdigit() and len(text) < 6 and _FEWEST <= int(text) <= _MOST):
        raise ApiError(400, "invalid_request_error", f"limit: a number from {_FEWEST} to {_MOST}", "limit")
    return int(text)
