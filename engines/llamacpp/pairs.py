"""Pairs of a query and a document, put together as a reranker was trained on them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

import llama_cpp.llama_cpp as lib
import numpy as np

from engines.base import Pair, Vectors
from engines.errors import CannotLoad, ContextLengthExceeded
from engines.llamacpp.model import LlamaModel
from engines.text.ranking.pair_template import is_plain
from engines.text.ranking.pairs import STEP, PairPrompts
from engines.text.tokens.cutting import beginning
from engines.text.tokens.tokenizer import Tokenizer

Tokens = tuple[int, ...]

# A probability that is less counts as this.
_LEAST = 1e-30
_ANSWERS = ["yes", "no"]


@dataclass(frozen=True, slots=True)
class PairFrame:
    """The special tokens in front of a query, between it and its document, and behind that.

    BERT has ``[CLS] query [SEP] document [SEP]``, XLM-RoBERTa ``<s> query </s></s> document </s>``.
    """

    before: Tokens
    between: Tokens
    after: Tokens

    @classmethod
    def of(cls, model: LlamaModel) -> PairFrame:
        vocab = model.vocab
        bos, eos, sep = lib.llama_vocab_bos(vocab), lib.llama_vocab_eos(vocab), lib.llama_vocab_sep(vocab)
        eos = eos if eos >= 0 else sep
        sep = sep if sep >= 0 else eos
        begins, ends = lib.llama_vocab_get_add_bos(vocab), lib.llama_vocab_get_add_eos(vocab)
        # Files of XLM-RoBERTa may not say that two of them stand in the middle.
        separates = lib.llama_vocab_get_add_sep(vocab) or _is_unigram(vocab)
        between = [*([eos] if ends else []), *([sep] if separates else [])] or [eos]
        return cls(
            before=(bos,) if begins and bos >= 0 else (),
            between=_there(between),
            after=_there([eos if ends or not separates else sep]),
        )

    @property
    def size(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    def join(self, query: Tokens, document: Tokens) -> Tokens:
        return (*self.before, *query, *self.between, *document, *self.after)


class PairInputs:
    """Tokens of pairs: by the file's template if it has one, else with the vocabulary's special tokens."""

    def __init__(self, model: LlamaModel, tokenizer: Tokenizer, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._context = context_length
        self._frame = PairFrame.of(model)
        source = model.rerank_template
        # What is to be computed as a whole has no chat template that is for pairs.
        self._prompts = (
            PairPrompts(source, tokenizer, lambda text: False)
            if source is not None and is_plain(source)
            else None
        )

    async def of(self, pairs: Sequence[Pair], most: int | None) -> list[Tokens]:
        """As `Embeds.score` takes them."""
        most = most if most is None else min(most, self._context)
        if self._prompts is not None:
            return [prompt.token_ids for prompt in await self._prompts.prompts(pairs, most=most)]
        queries: dict[str, Tokens] = {}
        found = []
        for index, pair in enumerate(pairs):
            if index % STEP == STEP - 1:
                await asyncio.sleep(0)
            if pair.query not in queries:
                queries[pair.query] = await self._tokens(pair.query, "query")
            found.append(await self._join(queries[pair.query], pair.document, most, f"documents.{index}"))
        return found

    async def _join(self, query: Tokens, document: str, most: int | None, place: str) -> Tokens:
        around = len(query) + self._frame.size
        if around >= self._context or (most is not None and around >= most):
            raise ContextLengthExceeded(min(most or self._context, self._context), around + 1, prompt="query")
        if most is not None:
            document = await beginning(document, most - around, self._tokenizer)
        tokens = self._frame.join(query, (await self._tokens(document, place))[: most and most - around])
        if len(tokens) > self._context:
            raise ContextLengthExceeded(self._context, len(tokens), prompt=place)
        return tokens

    async def _tokens(self, text: str, place: str) -> Tokens:
        """What clients write has no special tokens."""
        chat = await self._tokenizer.guard([{"content": text}])
        hidden = chat.messages[0]["content"]
        try:
            return (await self._tokenizer.prompt(hidden, chat, add_special=False)).token_ids
        except ContextLengthExceeded as error:
            raise error.told(place, "") from None


def check_labels(model: LlamaModel) -> None:
    """Raise `CannotLoad` if the model gives other numbers than a score, or a yes and a no."""
    labels = _labels(model)
    if len(labels) > 1 and sorted(labels) != sorted(_ANSWERS):
        told = ", ".join(labels[:4])
        raise CannotLoad(
            f"{model.path.name} tells {len(labels)} kinds of texts apart ({told}): it is no reranker"
        )


def scores_of(model: LlamaModel, rows: Vectors) -> tuple[float, ...]:
    """The logits of the ``rows`` that a context gave, each of the model's labels."""
    labels = _labels(model)
    if len(labels) < 2:
        return tuple(float(row[0]) for row in rows)
    yes, no = (labels.index(answer) for answer in _ANSWERS)
    if (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=1e-3):  # probabilities
        return tuple(_log(row[yes]) - _log(row[no]) for row in rows)
    return tuple(float(row[yes] - row[no]) for row in rows)


def _log(probability: float) -> float:
    return math.log(max(float(probability), _LEAST))


def _labels(model: LlamaModel) -> list[str]:
    count = int(lib.llama_model_n_cls_out(model.handle))
    labels = (lib.llama_model_cls_label(model.handle, index) for index in range(count))
    return [label.decode("utf-8", "replace") if label else "" for label in labels]


def _is_unigram(vocab: object) -> bool:
    return bool(lib.llama_vocab_type(vocab) == lib.LLAMA_VOCAB_TYPE_UGM)


def _there(tokens: Sequence[int]) -> Tokens:
    return tuple(token for token in tokens if token >= 0)
