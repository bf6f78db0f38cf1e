"""Frames and labels of rerankers, as GGUF files say them."""

from __future__ import annotations

from collections.abc import Sequence

import llama_cpp.llama_cpp as lib

from engines.llamacpp.model import LlamaModel
from engines.text.ranking.pair_inputs import PairFrame, Tokens


def frame_of(model: LlamaModel) -> PairFrame:
    """The special tokens around a query and a document."""
    vocab = model.vocab
    bos, eos, sep = lib.llama_vocab_bos(vocab), lib.llama_vocab_eos(vocab), lib.llama_vocab_sep(vocab)
    eos = eos if eos >= 0 else sep
    sep = sep if sep >= 0 else eos
    begins, ends = lib.llama_vocab_get_add_bos(vocab), lib.llama_vocab_get_add_eos(vocab)
    # Files of XLM-RoBERTa may not say that two of them stand in the middle.
    separates = lib.llama_vocab_get_add_sep(vocab) or _is_unigram(vocab)
    between = [*([eos] if ends else []), *([sep] if separates else [])] or [eos]
    return PairFrame(
        before=(bos,) if begins and bos >= 0 else (),
        between=_there(between),
        after=_there([eos if ends or not separates else sep]),
    )


def labels_of(model: LlamaModel) -> list[str]:
    """The labels of what a model's head gives, in their order."""
    count = int(lib.llama_model_n_cls_out(model.handle))
    labels = (lib.llama_model_cls_label(model.handle, index) for index in range(count))
    return [label.decode("utf-8", "replace") if label else "" for label in labels]


def _is_unigram(vocab: object) -> bool:
    return bool(lib.llama_vocab_type(vocab) == lib.LLAMA_VOCAB_TYPE_UGM)


def _there(tokens: Sequence[int]) -> Tokens:
    return tuple(token for token in tokens if token >= 0)
