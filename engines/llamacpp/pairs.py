"""Pairs of a query and a document, put together as a reranker was trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import llama_cpp.llama_cpp as lib

from engines.llamacpp.model import LlamaModel

Tokens = tuple[int, ...]


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


def _is_unigram(vocab: object) -> bool:
    return bool(lib.llama_vocab_type(vocab) == lib.LLAMA_VOCAB_TYPE_UGM)


def _there(tokens: Sequence[int]) -> Tokens:
    return tuple(token for token in tokens if token >= 0)
