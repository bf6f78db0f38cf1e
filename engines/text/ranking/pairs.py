"""Pairs of a query and a document, in the template that a reranker was trained with."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from engines.base import Pair, Prompt
from engines.errors import ContextLengthExceeded
from engines.text.ranking.pair_template import DOCUMENT, QUERY, is_plain
from engines.text.tokens.cutting import beginning
from engines.text.tokens.tokenizer import Tokenizer

# Documents that are tokenised between two looks at other requests.
STEP = 16


class RendersChat(Protocol):
    """A chat template, as `engines.text.templates.renderer.ChatTemplate` applies it."""

    async def render(
        self, messages: Sequence[Mapping[str, Any]], /, *, add_generation_prompt: bool
    ) -> str: ...


class PairPrompts:
    """Makes prompts of pairs by the template ``source``, one for which `is_for_pairs` holds."""

    def __init__(
        self,
        source: str,
        tokenizer: Tokenizer,
        lacks_special: Callable[[str], bool],
        template: RendersChat | None = None,
    ) -> None:
        """``lacks_special``: whether a prompt still needs the special tokens in front of a text. ``template``
        renders ``source`` if that is not plain."""
        self._tokenizer = tokenizer
        self._lacks_special = lacks_special
        self._parts = re.split(f"({QUERY}|{DOCUMENT})", source)
        self._template = None if is_plain(source) else template

    async def prompts(self, pairs: Sequence[Pair], *, most: int | None = None) -> list[Prompt]:
        """With ``most`` documents are cut at their end, so that no prompt has more tokens. Raises
        `ContextLengthExceeded` with the parameter ``documents.N`` for the pair that is too long."""
        found = []
        for index, pair in enumerate(pairs):
            if index % STEP == STEP - 1:
                await asyncio.sleep(0)
            try:
                found.append(await (self._prompt(pair) if most is None else self._short(pair, most)))
            except ContextLengthExceeded as error:
                raise error.told(f"documents.{index}", "") from None
        return found

    async def _prompt(self, pair: Pair) -> Prompt:
        chat = await self._tokenizer.guard(
            [{"role": "query", "content": pair.query}, {"role": "document", "content": pair.document}]
        )
        if self._template is not None:
            text = await self._template.render(chat.messages, add_generation_prompt=True)
        else:
            query, document = (message["content"] for message in chat.messages)
            values = {QUERY: query, DOCUMENT: document}
            text = "".join(str(values.get(part, part)) for part in self._parts)
        return await self._tokenizer.prompt(text, chat, add_special=self._lacks_special(text))

    async def _short(self, pair: Pair, most: int) -> Prompt:
        around = len((await self._prompt(Pair(pair.query, ""))).token_ids)
        room = most - around
        while room > 0:
            document = await beginning(pair.document, room, self._tokenizer)
            prompt = await self._prompt(Pair(pair.query, document))
            if len(prompt.token_ids) <= most:
                return prompt
            room -= len(prompt.token_ids) - most  # tokens may be others where texts meet
        raise ContextLengthExceeded(most, around + 1)
