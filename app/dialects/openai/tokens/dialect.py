"""Dialects of requests for tokens."""

from __future__ import annotations

from typing import Any

from app.dialects.openai.dialect import OpenAI
from app.dialects.openai.tokens import parse, write
from app.inference import tokens
from app.inference.dialect import Execution, Resolve
from app.inference.tokens import TextTask, TokensTask, WriteTokens
from balancer.call import Reply, WireFormat

WIRE = WireFormat(is_end=lambda tail: True, find_usage=lambda tail: None, count_tokens=lambda data: 0)
"""Documents in which nothing is told of tokens that were computed."""


class _Tokens(OpenAI):
    """Base of these: nothing is counted, and without a model it is the default one."""

    wire = WIRE
    has_default_model = True


class Tokenize(_Tokens):
    """``POST /tokenize``."""

    def parse(self, document: Any, resolve: Resolve) -> TokensTask:
        return parse.tokenize(document, resolve)

    async def run(self, task: TokensTask, execution: Execution) -> Reply:
        return await tokens.run(task, write.tokenized, execution)


class Detokenize(_Tokens):
    """``POST /detokenize``."""

    def parse(self, document: Any, resolve: Resolve) -> TextTask:
        return parse.detokenize(document, resolve)

    async def run(self, task: TextTask, execution: Execution) -> Reply:
        return await tokens.text(task, write.detokenized, execution)


class TokensOfChat(_Tokens):
    """What is told of the prompt that a chat becomes, as ``write`` does."""

    def __init__(self, write: WriteTokens) -> None:
        self._write = write

    def parse(self, document: Any, resolve: Resolve) -> TokensTask:
        return parse.of_chat(document, resolve)

    async def run(self, task: TokensTask, execution: Execution) -> Reply:
        return await tokens.run(task, self._write, execution)


TOKENIZE = Tokenize()
DETOKENIZE = Detokenize()
RENDER = TokensOfChat(write.rendered)
APPLY_TEMPLATE = TokensOfChat(write.applied)
INPUT_TOKENS = TokensOfChat(write.counted)
