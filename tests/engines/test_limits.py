from __future__ import annotations

from typing import Any

import pytest

from engines.base import GenerationRequest, Prompt
from engines.errors import ContextLengthExceeded, RequestError
from engines.limits import generation_limit


def limit(prompt: int = 4, **fields: object) -> int:
    request = GenerationRequest("r", Prompt((1,) * prompt), **fields)  # type: ignore[arg-type]
    return generation_limit(request, context_length=16, n_vocab=8)


def test_what_may_be_generated() -> None:
    assert limit(max_tokens=5) == 5
    assert limit() == 12
    assert limit(max_tokens=0) == 0
    assert limit(prompt=16, max_tokens=0) == 0


def test_what_is_asked_for_beyond_the_context_is_cut() -> None:
    assert limit(max_tokens=12, must_fit=True) == 12
    assert limit(max_tokens=13) == limit(max_tokens=2**31 - 1) == 12
    with pytest.raises(ContextLengthExceeded) as refusal:
        limit(max_tokens=13, must_fit=True)
    assert refusal.value.message == (
        "This model's maximum context length is 16 tokens. However, you requested 17 tokens "
        "(4 in the prompt, 13 in the completion). Please reduce the length of the prompt or completion."
    )


@pytest.mark.parametrize(("prompt", "wanted"), [(16, 1), (16, None), (17, 0), (17, 5)])
def test_a_prompt_beyond_the_context_is_refused_in_openais_words(prompt: int, wanted: int | None) -> None:
    with pytest.raises(ContextLengthExceeded) as refusal:
        limit(prompt, max_tokens=wanted)
    assert refusal.value.message == (
        "This model's maximum context length is 16 tokens. "
        f"However, your prompt resulted in {prompt} tokens. Please reduce the length of the prompt."
    )


def test_what_was_generated_before_is_part_of_it() -> None:
    assert limit(max_tokens=5, generated=(1, 2)) == 5
    assert limit(max_tokens=5, generated=(1,) * 5) == 5
    assert limit(max_tokens=12, generated=(1,) * 12) == 12
    assert limit(generated=(1,) * 12) == 12


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 5, "generated": (1,) * 6},
        {"generated": (1,) * 13},
        {"generated": (8,)},
        {"generated": (-1,)},
    ],
)
def test_what_cannot_have_been_generated_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refusal:
        limit(**fields)
    assert refusal.value.param == "continuation"
