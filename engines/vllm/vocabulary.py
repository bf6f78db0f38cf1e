"""A vocabulary of vLLM's: text to token ids, and the raw bytes of every token, found when first needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from engines.text.grammar.hugging_face import lazy_tokenizer
from engines.text.ranking import pair_template
from engines.text.ranking.pair_template import template_of
from engines.text.tokens.fim import find_fim
from engines.text.tokens.special_tokens import SpecialTokens, added_tokens
from engines.text.tokens.token_bytes import decoder_kinds, rule


class VllmVocabulary:
    """Token ids to bytes. Special tokens have none, unless ``keep_special``."""

    def __init__(
        self, tokenizer: Any, n_vocab: int, *, end_ids: Iterable[int] = (), keep_special: bool = False
    ) -> None:
        self.n_vocab = n_vocab
        self._end_ids = frozenset(end_ids)
        self.bos_text: str = getattr(tokenizer, "bos_token", None) or ""
        self.eos_text: str = getattr(tokenizer, "eos_token", None) or ""
        self.rerank_template = template_of(
            getattr(tokenizer, "chat_template", None), *pair_template.NAMES, "default"
        )
        self._tokenizer = tokenizer
        self._pieces: dict[int, bytes] = {}
        self._labels: dict[int, bytes] = {}
        self._special = frozenset() if keep_special else frozenset(tokenizer.all_special_ids)
        decoder = getattr(tokenizer, "added_tokens_decoder", {})
        self._added: dict[int, str] = {token: added.content for token, added in decoder.items()}
        if not keep_special:
            self._special |= {token for token, added in decoder.items() if added.special}
        self.special_tokens = SpecialTokens(
            added_tokens(decoder, self._end_ids), longest=max(map(len, tokenizer.get_vocab()), default=1)
        )
        self.fim = find_fim(tokenizer.get_vocab().get)
        self.splits_runs = False
        # A slow tokenizer's tokens can only be decoded as text.
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._to_bytes = None if backend is None else rule(decoder_kinds(backend))
        self.grammar_vocabulary = None if backend is None else lazy_tokenizer(backend, n_vocab, self._end_ids)

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends an answer."""
        return token in self._end_ids

    def piece(self, token: int) -> bytes:
        """The bytes that ``token`` adds to a text in progress."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = b"" if token in self._special else self.label(token)
        return piece

    def label(self, token: int) -> bytes:
        """The bytes that name ``token``, special tokens included."""
        label = self._labels.get(token)
        if label is None:
            label = self._labels[token] = self._find(token)
        return label

    def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        """Token ids; what is no Unicode scalar value is read as "?"."""
        clean = text.encode("utf-8", "replace").decode()
        return tuple(self._tokenizer.encode(clean, add_special_tokens=add_special))

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of tokens; bytes that form no character become U+FFFD."""
        if self._to_bytes is None:  # what joins them is not known token by token
            return str(self._tokenizer.decode([*token_ids], skip_special_tokens=bool(self._special)))
        return b"".join(map(self.piece, token_ids)).decode("utf-8", "replace")

    def _find(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode("utf-8", "replace")
        name = self._tokenizer.convert_ids_to_tokens(token)
        if name is None:  # padding of the embedding matrix
            return b""
        if self._to_bytes is not None:
            return self._to_bytes(name)
        return str(self._tokenizer.decode([token])).encode("utf-8", "replace")
