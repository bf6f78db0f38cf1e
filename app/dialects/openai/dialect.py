"""OpenAI's dialects: chat completions and text completions."""

from __future__ import annotations

from typing import Any

from app.dialects.openai.chat import parse as chat
from app.dialects.openai.chat.write import ChatWriter
from app.dialects.openai.completions import parse as completions
from app.dialects.openai.completions.write import CompletionWriter
from app.dialects.openai.wire import WIRE
from app.errors import error_body, to_api_error
from app.inference.dialect import AnswerContext, AnswerWriter, Resolve
from app.inference.task import Task
from app.sse import sse
from balancer.call import WireFormat


class _OpenAI:
    """Base of both: the wire format, and errors in OpenAI's envelope."""

    wire: WireFormat = WIRE

    def error_event(self, error: Exception) -> bytes:
        """No ``[DONE]`` follows."""
        return sse(error_body(to_api_error(error)))


class ChatCompletions(_OpenAI):
    """``POST /v1/chat/completions``."""

    def parse(self, document: Any, resolve: Resolve) -> Task:
        return chat.parse(document, resolve)

    def writer(self, task: Task, context: AnswerContext) -> AnswerWriter:
        return ChatWriter(task, context)


class TextCompletions(_OpenAI):
    """``POST /v1/completions``."""

    def parse(self, document: Any, resolve: Resolve) -> Task:
        return completions.parse(document, resolve)

    def writer(self, task: Task, context: AnswerContext) -> AnswerWriter:
        return CompletionWriter(task, context)


CHAT = ChatCompletions()
COMPLETIONS = TextCompletions()
