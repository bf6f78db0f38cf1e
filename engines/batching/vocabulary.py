"""Vocabulary of a model: its tokens as text."""

from __future__ import annotations

from typing import Protocol

from engines.text.answers.output import TokenTexts
from engines.text.tokens.fim import FimTokens
from engines.text.tokens.tokenizer import TextVocabulary


class ModelVocabulary(TextVocabulary, TokenTexts, Protocol):
    """A loaded model's tokens and chat template. Immutable: any thread may use it.

    ``n_vocab`` is how many token ids there are; ``bos_text`` and ``eos_text`` are empty where the model has
    no such token; ``fim`` is None where it cannot fill in the middle, ``rerank_template`` where it has no
    template that takes a query and a document.
    """

    @property
    def fim(self) -> FimTokens | None: ...

    @property
    def bos_text(self) -> str: ...

    @property
    def eos_text(self) -> str: ...

    @property
    def chat_template(self) -> str | None: ...

    @property
    def rerank_template(self) -> str | None: ...

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends a generation."""
        ...
