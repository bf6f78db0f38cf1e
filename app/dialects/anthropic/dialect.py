"""Anthropic's dialects: messages, and the tokens of their prompts."""

from __future__ import annotations

from typing import Any

from app.dialects.anthropic import parse
from app.dialects.anthropic.envelope import envelope
from app.dialects.anthropic.wire import WIRE
from app.dialects.anthropic.write import MessageWriter
from app.dialects.openai.tokens.dialect import WIRE as NO_WIRE
from app.dialects.openai.tokens.write import counted
from app.errors import to_api_error
from app.inference import pipeline, tokens
from app.inference.dialect import AnswerContext, AnswerWriter, Execution, Resolve
from app.inference.task import Task
from app.inference.tokens import TokensTask
from app.sse import sse
from balancer.call import Reply, WireFormat


class Anthropic:
    """Base of all: the wire format, and errors in Anthropic's envelope."""

    wire: WireFormat = WIRE
    has_default_model = False

    def error_event(self, error: Exception, sent: bytes) -> bytes:
        _, body = envelope(to_api_error(error), "")
        return sse(body, "error")


class Messages(Anthropic):
    """``POST /v1/messages``."""

    def parse(self, document: Any, resolve: Resolve) -> Task:
        return parse.parse(document, resolve)

    async def run(self, task: Task, execution: Execution) -> Reply:
        return await pipeline.generate(task, self, execution)

    def writer(self, task: Task, context: AnswerContext) -> AnswerWriter:
        return MessageWriter(task, context)


class CountTokens(Anthropic):
    """``POST /v1/messages/count_tokens``."""

    wire = NO_WIRE

    def parse(self, document: Any, resolve: Resolve) -> TokensTask:
        return parse.parse_count(document, resolve)

    async def run(self, task: TokensTask, execution: Execution) -> Reply:
        return await tokens.run(task, counted, execution)


MESSAGES = Messages()
COUNT_TOKENS = CountTokens()
