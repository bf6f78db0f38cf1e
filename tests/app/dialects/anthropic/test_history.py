"""Messages as chat templates are given them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from app.dialects.anthropic.parse import parse
from app.dialects.anthropic.signature import reasoning_of, signature_of
from app.inference.targets import Resolved
from app.inference.task import Task
from balancer.call import Target

RECORDED: list[dict[str, Any]] = json.loads(Path(__file__).with_name("claude_code.json").read_text())
CALL = {"type": "tool_use", "id": "t1", "name": "look", "input": {"where": "Zürich"}}
URL = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}


def task(**fields: Any) -> Task:
    asked = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return parse(asked, lambda name: Resolved(Target(name, None, name)))


def turns(*messages: tuple[str, Any], system: Any = None) -> list[tuple[str, Any]]:
    """The role and the content of each turn."""
    asked = [{"role": role, "content": content} for role, content in messages]
    found = task(messages=asked, system=system).messages or ()
    return [(each["role"], each["content"]) for each in found]


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def result(content: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t1", "content": content, **fields}


DOCUMENT = {
    "type": "document",
    "title": "N",
    "source": {"type": "text", "media_type": "text/plain", "data": "x"},
}
PARTS = {"type": "document", "source": {"type": "content", "content": [text("a"), URL]}}
FOUND = {"type": "search_result", "source": "s", "title": "t", "content": [text("a"), text("b")]}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([("user", [text("a"), text("b")])], [("user", "a\nb")]),
        ([("user", "a"), ("user", [text("b")])], [("user", "a\nb")]),
        ([("user", "a"), ("system", "n"), ("user", "b")], [("user", "a"), ("system", "n"), ("user", "b")]),
        ([("user", "a"), ("assistant", [text("b"), text("c")])], [("user", "a"), ("assistant", "bc")]),
        ([("user", "a"), ("assistant", "b"), ("assistant", "c")], [("user", "a"), ("assistant", "bc")]),
        ([("user", [DOCUMENT])], [("user", '<document title="N">\nx\n</document>')]),
        ([("user", [FOUND])], [("user", '<search_result title="t" source="s">\na\nb\n</search_result>')]),
        ([("user", [result("r")])], [("tool", "r")]),
        ([("user", [text("u"), result("r")])], [("tool", "r"), ("user", "u")]),
        ([("user", [result([text("r"), text("s")]), result(None)])], [("tool", "r\ns"), ("tool", "")]),
        ([("user", [result("gone", is_error=True)])], [("tool", "Error: gone")]),
        ([("user", [result("Error: gone", is_error=True)])], [("tool", "Error: gone")]),
    ],
)
def test_turns(messages: list[tuple[str, Any]], expected: list[tuple[str, Any]]) -> None:
    assert turns(*messages) == expected


def test_calls_and_thoughts() -> None:
    told = {"type": "thinking", "thinking": "hm", "signature": "of another server"}
    kept = {"type": "thinking", "thinking": "", "signature": signature_of("ho", is_told=False)}
    redacted = {"type": "redacted_thinking", "data": "x"}
    content = [told, redacted, kept, text("Well."), CALL]
    (message,) = task(messages=[{"role": "assistant", "content": content}]).messages or ()
    function = {"name": "look", "arguments": '{"where": "Zürich"}'}
    calls = [{"id": "t1", "type": "function", "function": function}]
    thoughts = {"reasoning_content": "hmho", "reasoning": "hmho"}
    assert message == {"role": "assistant", "content": "Well.", "tool_calls": calls, **thoughts}
    (message,) = task(messages=[{"role": "assistant", "content": [CALL]}]).messages or ()
    assert message["content"] is None


@pytest.mark.parametrize("signature", ["", "enginehouse", "enginehouse:?", "enginehouse:/w==", "x:aG8="])
def test_a_signature_that_keeps_nothing(signature: str) -> None:
    assert reasoning_of("", signature) == ""
    assert reasoning_of("told", signature) == "told"


def test_images_keep_their_places() -> None:
    content = [result([text("r"), PNG]), text("u"), URL, PARTS]
    found = task(messages=[{"role": "user", "content": content}])
    assert [(each.source, each.param) for each in found.media] == [
        ("data:image/png;base64,aGk=", "messages.0.content.0.content.1.source.data"),
        ("https://example.org/a.png", "messages.0.content.2.source.url"),
        ("https://example.org/a.png", "messages.0.content.3.source.content.1.source.url"),
    ]
    assert found.needs["vision"] == found.media[0].param
    tool, user = found.messages or ()
    assert tool["content"] == "r"
    images = [part["index"] for part in user["content"] if part["type"] == "image"]
    assert images == [0, 1, 2]


BILLS = [f"x-anthropic-billing-header: cc_version=2.1; cch={each};" for each in ("1a", "2b")]


def test_what_changes_with_every_request_is_left_out() -> None:
    for system in (
        [[text(bill), text("Be brief."), text("Be kind.")] for bill in BILLS],
        [f"{bill}\nBe brief.\nBe kind." for bill in BILLS],
    ):
        first, second = (turns(("user", "a"), system=each) for each in system)
        assert first == second == [("system", "Be brief.\nBe kind."), ("user", "a")]
    assert turns(("user", "a"), system=[text(BILLS[0])]) == [("user", "a")]


def test_what_claude_code_sends() -> None:
    """Each turn's conversation begins with the one before; deferred tools are not shown."""
    tasks = [task(**request["body"]) for request in RECORDED]
    for before, after in pairwise(tasks):
        assert before.messages is not None
        assert after.messages is not None
        assert after.messages[: len(before.messages)] == before.messages
        assert before.tools == after.tools
    assert [message["role"] for message in tasks[-1].messages or ()] == [
        *["system", "user", "system"],
        *["assistant", "tool"] * 2,
    ]
    assert tasks[0].tools is not None
    assert [each["function"]["name"] for each in tasks[0].tools.definitions] == ["Read", "Write"]
    assert tasks[0].unknown == ()
    assert not tasks[0].tell_reasoning
