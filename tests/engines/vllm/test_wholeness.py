"""Streams of vLLM's whose grammar failed: vLLM ends them as if they were complete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest

from engines.base import GenerationRequest, Prompt, Structure
from engines.errors import RequestError
from engines.text.answers.output import output_of
from engines.text.grammar import Compiler
from engines.vllm.stream import VllmStream
from engines.vllm.vocabulary import VllmVocabulary
from engines.vllm.wholeness import Wholeness
from support.grammars import END, byte_vocabulary

STOP_TOKEN = 7
STRUCTURE = Structure("json_schema", '{"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2}')


class _Output:
    """What vLLM's collector gives at once."""

    num_cached_tokens = 0

    def __init__(self, tokens: list[int], finish_reason: str | None) -> None:
        self.outputs = [self]
        self.token_ids, self.finish_reason, self.logprobs = tokens, finish_reason, None


class _Collector:
    def __init__(self, *outputs: _Output) -> None:
        self.get_nowait: Callable[[], _Output] = partial(next, iter(outputs))


class _Bytes:
    """A vocabulary whose tokens are bytes."""

    def piece(self, token: int) -> bytes:
        return bytes([token])

    label = piece


async def text_of(text: str, end: int, reason: str = "stop", **fields: Any) -> str:
    """The text of a stream that vLLM ended after ``text`` for ``reason`` with the token ``end``."""
    compiler = Compiler(byte_vocabulary())
    await compiler.compile(STRUCTURE)
    request = GenerationRequest("r", Prompt((1,)), structure=STRUCTURE, **fields)
    vocabulary = cast(VllmVocabulary, _Bytes())
    tokens = list(text.encode())
    collector = _Collector(_Output(tokens[:1], None), _Output([*tokens[1:], end], reason))
    start: asyncio.Task[Any] = asyncio.create_task(asyncio.sleep(0, collector))
    whole = Wholeness(partial(compiler.check_whole, STRUCTURE), lambda token: token == END)
    stream = VllmStream(request, vocabulary, output_of(request, vocabulary), start, lambda *_: None, whole)
    try:
        return "".join([chunk.text async for chunk in stream])
    finally:
        await compiler.close()


async def test_an_answer_that_ended_too_early_is_an_error() -> None:
    for text in ("[1,", "[1, 3]", "["):
        with pytest.raises(RequestError, match="before it had the form") as error:
            await text_of(text, END)
        assert error.value.param == "response_format"


async def test_what_vllm_cannot_follow_is_the_requests_fault() -> None:
    with pytest.raises(RequestError, match="make it simpler"):
        await text_of("[1", END, "error")


async def test_an_answer_that_may_end_there_does() -> None:
    assert await text_of("[1, 2]", END) == "[1, 2]"
    assert await text_of("[1", STOP_TOKEN, stop_token_ids=(STOP_TOKEN,)) == "[1"
    assert await text_of("[1, 2]", END, stop=(", ",)) == "[1"
    assert await text_of("[1,", ord("2"), "length") == "[1,2"
