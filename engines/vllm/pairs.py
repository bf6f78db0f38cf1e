"""Frames and labels of cross-encoders, as Hugging Face's tokenizers and configurations say them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engines.errors import CannotLoad
from engines.text.ranking.pair_inputs import PairFrame, PairInput, Tokens

# Any word that no tokenizer drops: where its tokens stand shows the frame around it.
_WORD = "a"
_NONE = PairFrame((), (), ())


@dataclass(frozen=True, slots=True)
class PairLayout:
    """The ``frame`` of pairs, and whether their tokens are of two types; the second one begins ``shift``
    tokens behind where the document does."""

    frame: PairFrame
    has_types: bool = False
    shift: int = 0

    @classmethod
    def of(cls, tokenizer: Any, *, has_template: bool) -> PairLayout:
        """As a fast ``tokenizer`` puts pairs together. Raises `CannotLoad` for one that puts nothing between
        them, unless ``has_template``: that does it then."""
        if has_template:
            return cls(_NONE)
        pair = tokenizer(text=_WORD, text_pair=_WORD)
        ids: Tokens = tuple(pair["input_ids"])
        places = pair.sequence_ids(0)  # None where a special token stands
        first, second = places.index(0), places.index(1)
        last = len(places) - 1 - places[::-1].index(1)
        count = places.count(0)
        frame = PairFrame(ids[:first], ids[first + count : second], ids[last + 1 :])
        if not frame.between:
            raise CannotLoad(
                "the model's tokenizer puts nothing between a query and a document: say in models.yaml how "
                "they become a prompt, with `rerank_template`"
            )
        types = pair.get("token_type_ids")
        if types is None or 1 not in types:
            return cls(frame)
        return cls(frame, has_types=True, shift=types.index(1) - second)

    def first_of_second_type(self, pair: PairInput) -> int | None:
        """The place from which on tokens are of the second type; None if there are no types."""
        if not self.has_types:
            return None
        return len(pair.tokens) if pair.document is None else pair.document + self.shift


def labels_of(config: Any) -> list[str]:
    """The labels of what a model's head gives, in their order."""
    names = getattr(config, "id2label", None) or {}
    return [str(names.get(index, f"LABEL_{index}")) for index in range(int(config.num_labels))]
