from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers

from engines.errors import ModelLoadError
from engines.mlx.vocabulary import MlxVocabulary


def wrapped(vocab: dict[str, int], decoder: Any, added: dict[int, Any], template: Any = None) -> Any:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<unk>"))
    backend.decoder = decoder
    return SimpleNamespace(
        backend_tokenizer=backend,
        added_tokens_decoder=added,
        bos_token=None,
        eos_token="</s>",
        chat_template=template,
    )


def added(content: str, special: bool) -> Any:
    return SimpleNamespace(content=content, special=special)


BYTE_LEVEL = {"<unk>": 0, "</s>": 1, "Ġship": 2, "Ã": 3, "©": 4, "Ā": 5, "<tool>": 6}


def byte_level(n_vocab: int = 8) -> MlxVocabulary:
    extra = {1: added("</s>", True), 6: added("<tool>", False)}
    tokenizer = wrapped(BYTE_LEVEL, tokenizers.decoders.ByteLevel(), extra)
    return MlxVocabulary(tokenizer, {1, 99}, n_vocab)


def test_byte_level_tokens_are_bytes() -> None:
    vocabulary = byte_level()
    assert [vocabulary.piece(i) for i in (2, 3, 4, 5)] == [b" ship", b"\xc3", b"\xa9", b"\x00"]
    assert vocabulary.detokenize([2, 3, 4]) == " shipé"
    assert vocabulary.detokenize([3]) == "\ufffd"


def test_control_tokens_are_silent_and_other_added_tokens_are_text() -> None:
    vocabulary = byte_level()
    assert vocabulary.piece(1) == b""
    assert vocabulary.label(1) == b"</s>"
    assert vocabulary.piece(6) == b"<tool>"


def test_ids_that_only_the_model_knows_have_no_text() -> None:
    assert byte_level().piece(7) == b""


def test_end_ids_are_the_models() -> None:
    assert byte_level().end_ids == (1,)


def test_sentencepiece_tokens() -> None:
    vocab = {"<unk>": 0, "▁a": 1, "<0xC3>": 2, "<0xA9>": 3, "▁": 4}
    parts = [
        tokenizers.decoders.Replace("▁", " "),
        tokenizers.decoders.ByteFallback(),
        tokenizers.decoders.Fuse(),
        tokenizers.decoders.Strip(" ", 1, 0),
    ]
    vocabulary = MlxVocabulary(wrapped(vocab, tokenizers.decoders.Sequence(parts), {}), (), 5)
    assert [vocabulary.piece(i) for i in (1, 2, 3, 4)] == [b" a", b"\xc3", b"\xa9", b" "]
    assert vocabulary.detokenize([1, 2, 3]) == "aé"


def test_the_default_of_several_templates() -> None:
    decoder = tokenizers.decoders.ByteLevel()
    named = wrapped(BYTE_LEVEL, decoder, {}, {"default": "D", "tool_use": "T"})
    assert MlxVocabulary(named, (), 8).chat_template == "D"
    assert MlxVocabulary(wrapped(BYTE_LEVEL, decoder, {}, ""), (), 8).chat_template is None


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="no fast version"):
        MlxVocabulary(SimpleNamespace(), (), 8)
