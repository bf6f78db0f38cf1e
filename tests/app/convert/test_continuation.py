"""Which answers another backend can go on with."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from app.convert.continuation import begun_elsewhere, resumable
from app.convert.features import chat_features, completion_features
from app.schemas.chat import ChatCompletionRequest
from app.schemas.completions import CompletionRequest
from balancer.call import ResumePoint
from engines.errors import UnsupportedFeature

BEGUN = {"token_ids": [3, 4], "created": 7}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def chat(**fields: Any) -> tuple[Any, Any]:
    messages = [{"role": "user", "content": "hi"}]
    given = {"model": "m", "messages": messages, "stream": True, "continuation": BEGUN, **fields}
    body = ChatCompletionRequest.model_validate(given)
    return body, chat_features(body, None)


def completion(**fields: Any) -> tuple[Any, Any]:
    given = {"model": "m", "prompt": "hi", "stream": True, "continuation": BEGUN, **fields}
    body = CompletionRequest.model_validate(given)
    return body, completion_features(body, None)


@pytest.mark.parametrize(
    "wish",
    [
        chat(),
        chat(tools=TOOLS, tool_choice="none", response_format={"type": "text"}),
        chat(stop="x", seed=1, stream_options={"include_usage": True}),
        completion(prompt=[1, 2], echo=True),
        completion(prompt=["hi"]),
    ],
)
def test_plain_streams_can_go_on(wish: tuple[Any, Any]) -> None:
    assert resumable(*wish)
    assert begun_elsewhere(*wish) == ResumePoint((3, 4), 7)


@pytest.mark.parametrize(
    ("wish", "obstacle"),
    [
        (chat(stream=False), "stream: false"),
        (chat(n=2), "n > 1"),
        (chat(logprobs=True), "logprobs"),
        (chat(tools=TOOLS), "tools"),
        (chat(tools=TOOLS, tool_choice="required"), "tools"),
        (chat(response_format={"type": "json_object"}), "structured output"),
        (chat(structured_outputs={"regex": "a"}), "structured output"),
        (completion(logprobs=0), "logprobs"),
        (completion(prompt=["a", "b"]), "several prompts"),
        (completion(prompt=[[1], [2]]), "several prompts"),
    ],
)
def test_what_cannot_go_on_is_refused_by_name(wish: tuple[Any, Any], obstacle: str) -> None:
    assert not resumable(*wish)
    with pytest.raises(UnsupportedFeature, match=obstacle) as refused:
        begun_elsewhere(*wish)
    assert refused.value.param == "continuation"


def test_nothing_was_begun() -> None:
    assert begun_elsewhere(*chat(continuation=None, n=2)) is None


@pytest.mark.parametrize(
    "continuation",
    [
        {"token_ids": [-1], "created": 7},
        {"token_ids": ["3"], "created": 7},
        {"token_ids": [3]},
        {"token_ids": [3], "created": -7},
        {"token_ids": [3], "created": 7, "text": "x"},
    ],
)
def test_malformed_continuations(continuation: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="continuation"):
        chat(continuation=continuation)
