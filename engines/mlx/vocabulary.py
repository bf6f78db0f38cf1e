"""A Hugging Face tokenizer as raw bytes: what each token id adds to the text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from engines.errors import BadModelFile
from engines.text.grammar.hugging_face import lazy_tokenizer
from engines.text.ranking import pair_template
from engines.text.ranking.pair_template import template_of
from engines.text.tokens.fim import find_fim
from engines.text.tokens.special_tokens import SpecialTokens, added_tokens
from engines.text.tokens.token_bytes import decoder_kinds, rule, sentence_piece


class MlxVocabulary:
    """Token ids to bytes and text to token ids. Immutable and safe to use from several threads."""

    def __init__(self, tokenizer: Any, end_ids: Iterable[int], n_vocab: int) -> None:
        """``tokenizer`` is a fast one of transformers; ``n_vocab`` how many ids the model knows.

        Raises `ModelLoadError` for other kinds of tokenizer.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise BadModelFile(
                "the model's tokenizer has no fast version: add its tokenizer.json to the folder"
            )
        backend.no_truncation()
        backend.no_padding()
        self.n_vocab = n_vocab
        self.end_ids = tuple(sorted({i for i in end_ids if 0 <= i < n_vocab}))
        self.bos_text: str = tokenizer.bos_token or ""
        self.eos_text: str = tokenizer.eos_token or ""
        self.chat_template = template_of(tokenizer.chat_template, "default")
        self.rerank_template = template_of(tokenizer.chat_template, *pair_template.NAMES, "default")
        self.response_template = getattr(tokenizer, "response_template", None)
        self.grammar_vocabulary = lazy_tokenizer(backend, n_vocab, self.end_ids)
        self._backend = backend
        kinds = decoder_kinds(backend)
        self._strips_space = "Strip" in kinds or "Metaspace" in kinds
        self._labels = _labels(
            backend, tokenizer.added_tokens_decoder, rule(kinds) or sentence_piece, n_vocab
        )
        self.special_tokens = SpecialTokens(
            added_tokens(tokenizer.added_tokens_decoder, self.end_ids),
            longest=max(map(len, self._labels), default=1),
        )
        self.fim = find_fim(backend.token_to_id)
        self.splits_runs = False
        self._silent = frozenset(i for i, t in tokenizer.added_tokens_decoder.items() if t.special)

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends a generation."""
        return token in self.end_ids

    def piece(self, token: int) -> bytes:
        """The bytes ``token`` adds to the text; control tokens add none."""
        return b"" if token in self._silent else self._labels[token]

    def label(self, token: int) -> bytes:
        """The bytes that name ``token``, control tokens included."""
        return self._labels[token]

    def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        clean = text.encode("utf-8", "replace").decode()  # a lone surrogate is no text
        return tuple(self._backend.encode(clean, add_special_tokens=add_special).ids)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        text = b"".join(map(self.label, token_ids)).decode("utf-8", "replace")
        return text.removeprefix(" ") if self._strips_space else text


def _labels(
    backend: Any, added: dict[int, Any], to_bytes: Callable[[str], bytes], n_vocab: int
) -> list[bytes]:
    """The bytes of every id; a model may know more ids than its tokenizer, and those have none."""
    labels = [b""] * n_vocab
    for text, i in backend.get_vocab(with_added_tokens=True).items():
        if i < n_vocab:
            labels[i] = added[i].content.encode() if i in added else to_bytes(text)
    return labels
