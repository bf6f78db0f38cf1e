from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from app.dialects.openai.completions.schema import CompletionRequest


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
