"""Tokens of pairs of a query and a document, put together as a reranker was trained on them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engines.base import Pair
from engines.errors import ContextLengthExceeded
from engines.text.ranking.pair_template import is_plain
from engines.text.ranking.pairs import STEP, PairPrompts
from engines.text.tokens.cutting import beginning
from engines.text.tokens.tokenizer import Tokenizer

Tokens = tuple[int, ...]


class PairInput(NamedTuple):
    """The tokens of a pair; its document begins at ``document``, None where a template put them together."""

    tokens: Tokens
    document: int | None = None


@dataclass(frozen=True, slots=True)
class PairFrame:
    """The special tokens in front of a query, between it and its document, and behind that.

    BERT has ``[CLS] query [SEP] document [SEP]``, XLM-RoBERTa ``<s> query </s></s> document </s>``.
    """

    before: Tokens
    between: Tokens
    after: Tokens

    @property
    def size(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    def join(self, query: Tokens, document: Tokens) -> PairInput:
        first = (*self.before, *query, *self.between)
        return PairInput((*first, *document, *self.after), len(first))


class PairInputs:
    """Makes inputs of pairs: by the model's ``template`` if that is plain, else in the vocabulary's frame.

    What is to be computed as a whole has no chat template that is for pairs.
    """

    def __init__(
        self, frame: PairFrame, tokenizer: Tokenizer, context_length: int, template: str | None
    ) -> None:
        self._tokenizer = tokenizer
        self._context = context_length
        self._frame = frame
        self._prompts = (
            PairPrompts(template, tokenizer, lambda text: False)
            if template is not None and is_plain(template)
            else None
        )

    async def of(self, pairs: Sequence[Pair], most: int | None) -> list[PairInput]:
        """As `Embeds.score` takes them."""
        most = most if most is None else min(most, self._context)
        if self._prompts is not None:
            return [PairInput(prompt.token_ids) for prompt in await self._prompts.prompts(pairs, most=most)]
        queries: dict[str, Tokens] = {}
        found = []
        for index, pair in enumerate(pairs):
            if index % STEP == STEP - 1:
                await asyncio.sleep(0)
            if pair.query not in queries:
                queries[pair.query] = await self._tokens(pair.query, "query")
            found.append(await self._join(queries[pair.query], pair.document, most, f"documents.{index}"))
        return found

    async def _join(self, query: Tokens, document: str, most: int | None, place: str) -> PairInput:
        around = len(query) + self._frame.size
        if around >= self._context or (most is not None and around >= most):
            raise ContextLengthExceeded(min(most or self._context, self._context), around + 1, prompt="query")
        if most is not None:
            document = await beginning(document, most - around, self._tokenizer)
        joined = self._frame.join(query, (await self._tokens(document, place))[: most and most - around])
        if len(joined.tokens) > self._context:
            raise ContextLengthExceeded(self._context, len(joined.tokens), prompt=place)
        return joined

    async def _tokens(self, text: str, place: str) -> Tokens:
        """What clients write has no special tokens."""
        chat = await self._tokenizer.guard([{"content": text}])
        hidden = chat.messages[0]["content"]
        try:
            return (await self._tokenizer.prompt(hidden, chat, add_special=False)).token_ids
        except ContextLengthExceeded as error:
            raise error.told(place, "") from None
