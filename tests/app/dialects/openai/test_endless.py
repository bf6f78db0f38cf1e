from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from app.dialects.openai.chat.schema import MAX_MESSAGES, ChatCompletionRequest
from app.dialects.openai.completions.schema import MAX_TOKEN_IDS, CompletionRequest


@pytest.mark.parametrize(
    "prompt",
    [
        [1] * 1000 + ["a"] * 1000,
        [[1] * 1000 + [None] * 1000],
        [None] * 1000,
        [[]] * 100,
        [-1] * 1000,
    ],
)
def test_a_long_list_has_few_errors(prompt: Any) -> None:
    """One for each kind of prompt that it is not, and not one for each element."""
    with pytest.raises(ValidationError) as refusal:
        CompletionRequest.model_validate({"model": "m", "prompt": prompt})
    assert len(refusal.value.errors()) <= 4


@pytest.mark.parametrize(
    "prompt", [[1] * (MAX_TOKEN_IDS + 1), [[1] * (MAX_TOKEN_IDS // 2)] * 2, [None] * (MAX_TOKEN_IDS + 1)]
)
def test_more_ids_than_any_context_are_not_looked_at(prompt: Any) -> None:
    with pytest.raises(ValidationError, match=f"at most {MAX_TOKEN_IDS} token ids") as refusal:
        CompletionRequest.model_validate({"model": "m", "prompt": prompt})
    assert [error["loc"] for error in refusal.value.errors()] == [("prompt",)]


def test_more_messages_than_any_context_holds_are_not_looked_at() -> None:
    with pytest.raises(ValidationError, match=f"at most {MAX_MESSAGES} messages") as refusal:
        ChatCompletionRequest.model_validate({"model": "m", "messages": [None] * (MAX_MESSAGES + 1)})
    assert [error["loc"] for error in refusal.value.errors()] == [("messages",)]
