"""The routes of Anthropic's API."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from app.dialects.anthropic.dialect import COUNT_TOKENS, MESSAGES
from app.dialects.anthropic.envelope import OVERLOADED
from app.dialects.anthropic.schema import (
    CountTokensRequest,
    MessageDocument,
    MessageErrorEnvelope,
    MessagesRequest,
    TokenCount,
)
from app.routers.serving import BareRoute, described_body, event_stream, serve
from app.schemas.common import ERROR_RESPONSES

router = APIRouter(tags=["Messages"], route_class=BareRoute)

# The schemas of request bodies, for the API's documentation: the routes read the bodies themselves.
BODIES: tuple[type[BaseModel], ...] = (MessagesRequest, CountTokensRequest)

_ERRORS: dict[int | str, dict[str, Any]] = {
    OVERLOADED if status == 503 else status: {**described, "model": MessageErrorEnvelope}
    for status, described in ERROR_RESPONSES.items()
}
_STREAM = event_stream("The answer; with `stream: true` as server-sent events ending with `message_stop`")


@router.post(
    "/v1/messages",
    summary="Answer a conversation, in Anthropic's form",
    response_model=MessageDocument,
    responses={**_ERRORS, **_STREAM},
    openapi_extra=described_body(MessagesRequest),
)
async def create_message(request: Request) -> Response:
    """Tools, thinking, images and `output_config.format` need a model that has them, else the answer is a 400
    that says which has. Any `anthropic-version` and `anthropic-beta` will do."""
    return await serve(request, MESSAGES)


@router.post(
    "/v1/messages/count_tokens",
    summary="Count the tokens of the prompt that a conversation becomes, in Anthropic's form",
    response_model=TokenCount,
    responses=_ERRORS,
    openapi_extra=described_body(CountTokensRequest),
)
async def count_message_tokens(request: Request) -> Response:
    """Of the same body as a message: system, tools, images and the model's template count."""
    return await serve(request, COUNT_TOKENS)
