"""JSON bodies of any size and kind: parsed or refused, and never for long at once."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import json_body
from app.dialects.openai.chat.schema import MAX_MESSAGES, MAX_PARTS
from app.dialects.openai.sampling import MAX_BIASES
from app.dialects.openai.tools import MAX_ARGUMENTS
from app.errors import ApiError
from app.json_body import MAX_CONTAINERS, MAX_DEPTH, MAX_ESCAPES, MAX_MEMBERS, MAX_VALUES
from app.routers.admin import MAX_BODY_BYTES
from support.clock import counted_turns
from support.server import LiveServer, live_server

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
often = settings(derandomize=True, max_examples=20, deadline=None)
documents = st.recursive(
    st.none() | st.integers() | st.text(st.characters(codec="utf-8") | st.sampled_from('"\\[]{},:')),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.sampled_from('"\\[]{},:a')), inner),
)


def deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def listed(item: bytes, count: int) -> bytes:
    return b"[" + b",".join([item] * count) + b"]"


def members(count: int) -> bytes:
    return json.dumps({f"m{i}": 1 for i in range(count)}).encode()


async def refusal(body: bytes) -> str:
    with pytest.raises(ApiError) as caught:
        await json_body.parse_large(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request_error")
    return caught.value.message


@often
@given(document=documents, size=st.integers(1, 20))
def test_what_is_json_passes_wherever_it_is_cut(document: Any, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_body, "_SLICE_BYTES", size)
        body = json.dumps(document, ensure_ascii=False).encode()
        assert result_of(json_body.parse_large(body)) == document


def result_of(work: Coroutine[Any, Any, Any]) -> Any:
    """What ``work`` returns, which waits for nothing but its turn. A loop for each would take longer."""
    try:
        while True:
            work.send(None)
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (deep(MAX_DEPTH + 1), "nests deeper"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nests deeper"),
        (listed(b"[]", MAX_CONTAINERS), "objects and arrays"),
        (listed(b"1", MAX_VALUES + 1), "values"),
        (members(MAX_MEMBERS + 1), "members"),
        (b'"' + b"\\n" * (MAX_ESCAPES + 1) + b'"', "backslashes"),
        (b"[" + b"9" * 1000 + b"]", "a number in it is too long"),
        (b"]" * 1000, "more is closed"),
        (json.dumps(["\u2200"] * 1000).encode("utf-16"), "not UTF-8"),
        (b'["' + b"\\" * 999 + b'"]', "not valid JSON"),
        (b"\xff" * 1000, "not UTF-8"),
        (b"", "required"),
    ],
)
async def test_what_no_request_has_is_refused(body: bytes, reason: str) -> None:
    if body:
        assert reason in await refusal(body)
    else:
        with pytest.raises(ApiError, match=reason):
            json_body.parse(body)


@pytest.mark.parametrize(
    "body",
    [
        deep(MAX_DEPTH),
        listed(b"1", MAX_VALUES),
        members(MAX_MEMBERS),
        listed(b'"[[[,,,:::"', 1000),
        b'["' + b"[,{:" * 2**18 + b'"]',
        b'["' + b'\\"\\\\,' * 2**17 + b'"]',
    ],
)
async def test_the_most_that_is_allowed_passes(body: bytes) -> None:
    assert await json_body.parse_large(body) == json.loads(body)


def test_depth_is_looked_at_however_small_a_body_is() -> None:
    assert json_body.is_small(deep(MAX_DEPTH))
    assert not json_body.is_small(deep(MAX_DEPTH + 1))


async def test_the_loop_turns_while_a_large_body_is_looked_through() -> None:
    async with counted_turns() as turns:
        await json_body.parse_large(b'"' + b"x" * 2**20 + b'"')
    assert turns.count >= 2**20 // json_body.SMALL_BYTES


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    upstream = "http://127.0.0.1:9/v1#model=theirs"
    with live_server(inference_engine="fake", upstreams=upstream, context_length=2**19) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


def message(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": "x", **fields}


def called(arguments: str) -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return message(role="assistant", tool_calls=[call])


TEXT = {"type": "text", "text": "x"}
FLOODS: list[tuple[str, dict[str, Any], str | None]] = [
    (CHAT, {"messages": [message()] * (MAX_MESSAGES + 1)}, "messages"),
    (CHAT, {"messages": [message()] * 100_000}, None),
    (CHAT, {"messages": [message(content=[TEXT] * (MAX_PARTS + 1))]}, "messages.0.content"),
    (CHAT, {"messages": [1] * 200_000}, "messages.0"),
    (CHAT, {"messages": [called('{"a":[' + "1," * (MAX_ARGUMENTS // 2) + "1]}")]}, None),
    (COMPLETIONS, {"prompt": "x", "logit_bias": {str(i): 1 for i in range(MAX_BIASES + 1)}}, "logit_bias"),
    (COMPLETIONS, {"prompt": "x", "stop": ["x"] * 100_000}, "stop"),
    (COMPLETIONS, {"prompt": "x", "stop": [1] * 100_000}, "stop.0"),
    (COMPLETIONS, {"prompt": [1.5] * 100_000}, "prompt.0"),
    (COMPLETIONS, {"prompt": [1] * 300_000}, None),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FLOODS)))
def test_floods_are_refused_at_once(client: httpx.Client, number: int) -> None:
    route, fields, param = FLOODS[number]
    body = json.dumps({"model": "fake", **fields})
    response = client.post(route, content=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "invalid_request_error")
    assert len(response.content) < 10_000
    if param is not None:
        assert error["param"] == param


@pytest.mark.parametrize(
    ("route", "fields"),
    [
        (CHAT, {"messages": [message(**{f"m{i}": i for i in range(20_000)})]}),
        (COMPLETIONS, {"prompt": "x", **{f"m{i}": i for i in range(20_000)}}),
        (COMPLETIONS, {"prompt": "x", "m" * 2**20: 1}),
    ],
)
def test_floods_of_unknown_fields_are_told_in_short(
    client: httpx.Client, route: str, fields: dict[str, Any]
) -> None:
    response = client.post(route, content=json.dumps({"model": "fake", "max_tokens": 1, **fields}))
    assert response.status_code == 200
    assert 0 < len(response.headers["x-enginehouse-ignored"]) < 2000


@pytest.mark.parametrize("model", ["fake", "theirs"])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 100_000])
def test_any_depth_is_refused_whoever_serves_the_model(client: httpx.Client, model: str, depth: int) -> None:
    body = b'{"model": "%s", "messages": %s}' % (model.encode(), deep(depth))
    response = client.post(CHAT, content=body)
    assert response.status_code == 400
    assert "objects and arrays" in response.text or "nests deeper" in response.text


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (
            "/v1/models/pull",
            {"model_name": "x", "include": [1] * 20_000},
            "include.0: Input should be a valid string",
        ),
        (
            "/v1/cluster/upstreams",
            {"url": "http://x", "models": {str(i): i for i in range(4000)}},
            "at most 1024",
        ),
    ],
)
def test_floods_of_management_are_refused_at_once(
    client: httpx.Client, path: str, body: dict[str, Any], message: str
) -> None:
    response = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert len(response.content) < 500


def test_a_large_honest_body_is_answered(client: httpx.Client) -> None:
    words = ["word"] * 40_000
    body = {"model": "fake", "prompt": " ".join(words), "max_tokens": 4}
    assert client.post(COMPLETIONS, json=body).json()["usage"]["prompt_tokens"] == len(words)


@pytest.mark.parametrize(
    "path", ["/v1/models/load", "/v1/models/pull", "/v1/cluster/scale", "/v1/cluster/upstreams"]
)
@pytest.mark.parametrize(
    ("body", "status"),
    [(b'"' + b"x" * MAX_BODY_BYTES + b'"', 413), (deep(MAX_DEPTH + 1), 400), (deep(30_000), 400)],
    ids=["large", "deep", "deeper"],
)
def test_bodies_of_management_are_small(client: httpx.Client, path: str, body: bytes, status: int) -> None:
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert set(response.json()) == {"error"}
