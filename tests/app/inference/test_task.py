from __future__ import annotations

from typing import Any

import pytest

from app.inference.task import CONVERSATION_CHARS, Task
from balancer.call import Target

TARGET = Target("m")
LONG = "a" * CONVERSATION_CHARS


def chat(*contents: str) -> str:
    messages = tuple({"role": "user", "content": content} for content in contents)
    return Task(target=TARGET, messages=messages).conversation()


def test_a_conversation_begins_as_what_it_goes_on_from() -> None:
    assert chat("one", "two").startswith(chat("one"))
    assert not chat("one", "two").startswith(chat("One"))
    assert Task(target=TARGET, prompts=("one",)).conversation() == '"one"'


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": ({"role": "user", "content": LONG * 20},) * 20},
        {"prompts": (LONG * 20,) * 20},
        {"prompts": (tuple(range(9)) * CONVERSATION_CHARS,)},
    ],
)
def test_it_is_told_only_as_far_as_it_counts(fields: dict[str, Any]) -> None:
    assert CONVERSATION_CHARS <= len(Task(target=TARGET, **fields).conversation()) < 4 * CONVERSATION_CHARS
