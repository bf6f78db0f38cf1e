"""OpenAI's dialect of Responses."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from app.dialects.openai.dialect import OpenAI
from app.dialects.openai.responses import parse
from app.dialects.openai.responses.parse import ResponseTask
from app.dialects.openai.responses.wire import WIRE
from app.dialects.openai.responses.write import ResponseWriter
from app.dialects.openai.tokens.dialect import WIRE as UNCOUNTED
from app.errors import ApiError, to_api_error
from app.inference import pipeline, tokens
from app.inference.dialect import AnswerContext, AnswerWriter, Execution, Resolve
from app.inference.task import Task
from app.inference.tokens import Tokens, TokensTask, tokens_of
from app.sse import sse, to_json
from balancer.call import Reply

_NUMBER = re.compile(rb'"sequence_number"\s*:\s*(\d{1,18})')
_CREATED = re.compile(rb'^data:\s*(\{.*"type"\s*:\s*"response\.created".*\})\s*$', re.MULTILINE)


class Responses(OpenAI):
    """``POST /v1/responses``."""

    wire = WIRE
    has_default_model = True

    def parse(self, document: Any, resolve: Resolve) -> Task:
        return parse.parse(document, resolve)

    async def run(self, task: Task, execution: Execution) -> Reply:
        return await pipeline.generate(task, self, execution)

    def writer(self, task: Task, context: AnswerContext) -> AnswerWriter:
        return ResponseWriter(cast(ResponseTask, task), context)

    def error_event(self, error: Exception, sent: bytes) -> bytes:
        """The response as it began, failed; an ``error`` where that cannot be read. No ``[DONE]`` follows."""
        told = to_api_error(error)
        numbers = _NUMBER.findall(sent)
        number = max(map(int, numbers)) + 1 if numbers else 0
        response = _begun(sent)
        if response is None:
            fields = {"code": told.code, "message": told.message, "param": told.param}
            return sse({"type": "error", "sequence_number": number, **fields}, "error")
        failed = {**response, "status": "failed", "error": _failure(told)}
        event = {"type": "response.failed", "sequence_number": number, "response": failed}
        return sse(event, "response.failed")


class InputTokensOfResponse(OpenAI):
    """``POST /v1/responses/input_tokens``."""

    wire = UNCOUNTED
    has_default_model = True

    def parse(self, document: Any, resolve: Resolve) -> TokensTask:
        return tokens_of(parse.parse(document, resolve))

    async def run(self, task: TokensTask, execution: Execution) -> Reply:
        return await tokens.run(task, _counted, execution)


def _counted(task: TokensTask, found: Tokens, request_id: str) -> Any:
    yield to_json({"object": "response.input_tokens", "input_tokens": len(found.token_ids)})


def _begun(sent: bytes) -> dict[str, Any] | None:
    """The response as the first event of a stream told it."""
    found = _CREATED.search(sent)
    if found is None:
        return None
    try:
        response = json.loads(found[1]).get("response")
    except (ValueError, RecursionError, AttributeError):
        return None
    return response if isinstance(response, dict) else None


def _failure(error: ApiError) -> dict[str, Any]:
    """Codes of OpenAI's: clients tell those apart that they can do something about."""
    code = "server_error" if error.status >= 500 else error.code
    return {"code": code, "message": error.message}


RESPONSES = Responses()
INPUT_TOKENS_OF_RESPONSE = InputTokensOfResponse()
