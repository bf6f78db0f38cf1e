"""Tokens: the tasks that ask what a prompt becomes, or what tokens mean, and their runs on an engine.

Nothing is generated, so no tokens are counted for anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from app.inference import capabilities
from app.inference.dialect import Execution
from app.inference.pieces import PiecesBody
from app.inference.prompting import longer, prompts_of, told_of
from app.inference.task import BaseTask, Task
from balancer.call import Reply
from engines.base import Encodes, Engine, Media
from engines.errors import ContextLengthExceeded
from engines.limits import check_prompt_length

# Tokens that are named between two looks at other requests.
STEP = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensTask(BaseTask):
    """A request for the tokens of ``chat``, a request for answers, or else of ``parts``, texts and tokens.

    ``add_special`` puts the special tokens that the model wants in front of a text that comes first;
    ``tell_texts`` tells each token's text too, and ``as_pieces`` together with it.
    """

    chat: Task | None = None
    parts: tuple[str | int, ...] = ()
    add_special: bool = False
    tell_texts: bool = False
    as_pieces: bool = False

    def conversation(self) -> str:
        return ""  # nothing of it stays in a cache


def tokens_of(chat: Task) -> TokensTask:
    """The request for the tokens that ``chat`` would take."""
    return TokensTask(
        target=chat.target,
        chat=chat,
        needs=chat.needs,
        keep_alive=chat.keep_alive,
        priority=chat.priority,
        unknown=chat.unknown,
        media=chat.media,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTask(BaseTask):
    """A request for the text of tokens."""

    token_ids: tuple[int, ...]

    def conversation(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt's tokens: ``text`` is what they were made from, ``texts`` what each of them adds to it, if
    that was asked for. The model takes ``context_length`` of them."""

    token_ids: Sequence[int]
    context_length: int
    text: str = ""
    texts: Sequence[bytes] | None = None


WriteTokens = Callable[[TokensTask, Tokens, str], Iterator[bytes]]
"""A dialect's way to write tokens, for the request of an id: the pieces of a document."""


async def run(task: TokensTask, write: WriteTokens, execution: Execution) -> Reply:
    """The reply of an engine of this process to ``task``."""
    engine = cast(Encodes, execution.resident)
    info = execution.resident.info
    capabilities.check(task.needs, info)
    if task.chat is None:
        try:
            token_ids = await _of_parts(task, engine, info.context_length)
            tokens = Tokens(token_ids, info.context_length)
        except ContextLengthExceeded as error:
            raise error.told("prompt", longer(info)) from None
    else:
        tokens = await _of_chat(task.chat, cast(Engine, execution.resident), execution.media)
    if task.tell_texts:
        texts = await _texts(engine, tokens.token_ids)
        tokens = Tokens(tokens.token_ids, tokens.context_length, tokens.text, texts)
    return _reply(write(task, tokens, execution.request.own_id))


async def text(task: TextTask, write: Callable[[str], bytes], execution: Execution) -> Reply:
    """The reply of an engine of this process to ``task``."""
    engine = cast(Encodes, execution.resident)
    capabilities.check(task.needs, execution.resident.info)
    try:
        found = await engine.detokenize(task.token_ids)
    except ContextLengthExceeded as error:
        raise error.told("tokens", longer(execution.resident.info)) from None
    return _reply(iter([write(found)]))


async def _of_chat(chat: Task, engine: Engine, media: Sequence[Media]) -> Tokens:
    """The very prompt that the chat would be answered by."""
    capabilities.check_generates(engine.info)
    with told_of(chat, engine.info):
        prompt, *_ = await prompts_of(chat, engine, media)
    known = prompt.text if prompt.text is not None else await engine.detokenize(prompt.token_ids)
    return Tokens(prompt.token_ids, engine.info.context_length, known)


async def _of_parts(task: TokensTask, engine: Encodes, context_length: int) -> list[int]:
    found: list[int] = []
    for index, part in enumerate(task.parts or ("",)):
        if index % STEP == STEP - 1:
            await asyncio.sleep(0)
        if isinstance(part, str):
            found += await engine.tokenize(part, add_special=task.add_special and not index)
        else:
            found.append(part)
        check_prompt_length(len(found), context_length)
    return found


async def _texts(engine: Encodes, token_ids: Sequence[int]) -> list[bytes]:
    found: list[bytes] = []
    for start in range(0, len(token_ids), STEP):
        found += engine.labels(token_ids[start : start + STEP])
        await asyncio.sleep(0)
    return found


def _reply(pieces: Iterator[bytes]) -> Reply:
    return Reply(200, [(b"content-type", b"application/json")], PiecesBody(pieces))
