"""Whatever a client sends: an answer or an error in the envelope, never a 500, never a hang."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from itertools import count
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.server import LiveServer, live_server

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
MESSAGES = "/v1/messages"
TIMEOUT = 10.0
JSON_TYPE = "application/json"

VALID: dict[str, dict[str, Any]] = {
    CHAT: {"model": "fake", "messages": [{"role": "user", "content": "one two"}], "max_tokens": 4},
    COMPLETIONS: {"model": "fake", "prompt": "one two", "max_tokens": 4},
}
# Those above, whose bodies are read alike, and those whose fields are their own.
ALL = VALID | {EMBEDDINGS: {"model": "fake", "input": ["one", "two"]}, MESSAGES: VALID[CHAT]}
SCHEMAS = {
    CHAT: "ChatCompletionRequest",
    COMPLETIONS: "CompletionRequest",
    EMBEDDINGS: "EmbeddingRequest",
    MESSAGES: "MessagesRequest",
}

_checks = count()

# Deterministic, so that a failure in CI is one that everybody gets.
often = settings(derandomize=True, max_examples=50, deadline=None)

texts = st.text(st.characters(codec=None, categories=None), max_size=20) | st.sampled_from(
    [
        "",
        "\x00",
        "\ud800",
        "a\udfff b",
        "\U0010ffff",
        "e\u0301\u202e",
        "fake",
        "user",
        "text",
        "1" * 30,
        "x" * 5000,
    ]
)
numbers = (
    st.integers()
    | st.floats()
    | st.sampled_from([0, -1, 1, 128, 2**31, 2**63, -(2**63) - 1, 2**64, 10**400, 1e308, 5e-324, -0.0])
)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
content_types = st.sampled_from(
    [JSON_TYPE, "application/json; charset=utf-16", "text/plain", "application/x-www-form-urlencoded",
     "multipart/form-data; boundary=x", "multipart/form-data", "application/vnd.api+json", "nonsense", ""]
)  # fmt: skip

ODD_BODIES = [
    b"", b" ", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf{}", b"{", b"}", b"[", b'{"', b'{"model"', b'{"model":',
    b"null", b"true", b"0", b"-", b"1e", b'"text"', b"[]", b"{}", b"[[]]", b"{}{}", b"NaN", b"-Infinity",
    b'{"model": NaN}', b'{"model": "\xc3\x28"}', b'{"model": "\\ud800"}', b'{"\\ud800": 1}',
    b'{"\\u0000": 1}', b'{"model": "\t"}', b"{'model': 'fake'}", b'{"model": "fake",}',
    b'{"model": "fake" "prompt": "a"}',
    b'{"model": "fake", "model": null}', b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b'{"prompt": ' + b"[" * 500 + b"]" * 500 + b"}",
    b'{"seed": ' + b"9" * 10_000 + b"}", b'{"max_tokens": 1e999999}', b'{"max_tokens": 1' + b"0" * 400 + b"}",
    b"//comment\n{}", b"\xff" * 1000, '{"model": "fake"}'.encode("utf-16"),
    '{"model": "fake"}'.encode("utf-32"),
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(inference_engine="fake", context_length=256) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[httpx.Client]:
    # A connection for each request: on one that is kept, delayed ACKs add 40 ms to every answer.
    fresh = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=server.url, timeout=TIMEOUT, limits=fresh) as client:
        yield client
        check_service(client)


@pytest.fixture(scope="module")
def fields(client: httpx.Client) -> dict[str, list[str]]:
    """The fields of each route's body, as the API documents them."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    return {route: sorted(schemas[name]["properties"]) for route, name in SCHEMAS.items()}


def post(client: httpx.Client, route: str, body: bytes, content_type: str = JSON_TYPE) -> httpx.Response:
    return client.post(route, content=body, headers={"Content-Type": content_type})


def check(client: httpx.Client, response: httpx.Response) -> None:
    """An answer or a proper refusal; and the server goes on to serve, which is looked at now and then."""
    assert response.status_code < 500, response.text
    if not response.is_success:
        check_envelope(response)
    if next(_checks) % 16 == 0:
        check_service(client)


def check_service(client: httpx.Client) -> None:
    good = client.post(COMPLETIONS, json=VALID[COMPLETIONS])
    assert good.status_code == 200, good.text


def check_envelope(response: httpx.Response) -> None:
    body = response.json()
    if response.request.url.path == MESSAGES:
        assert set(body) == {"type", "error", "request_id"}
        body["error"]["code"] = body["error"]["details"]["error_code"]
    else:
        assert set(body) == {"error"}
    assert isinstance(body["error"]["message"], str)
    assert body["error"]["message"]
    assert isinstance(body["error"]["code"], str)
    assert isinstance(body["error"]["type"], str)
    assert body["error"]["param"] is None or isinstance(body["error"]["param"], str)


@pytest.mark.parametrize("route", VALID)
@pytest.mark.parametrize("number", range(len(ODD_BODIES)), ids=lambda number: repr(ODD_BODIES[number][:24]))
def test_odd_bodies(client: httpx.Client, route: str, number: int) -> None:
    response = post(client, route, ODD_BODIES[number])
    assert response.status_code == 400
    check(client, response)


@pytest.mark.parametrize("route", VALID)
@often
@given(value=values)
def test_any_json(client: httpx.Client, route: str, value: Any) -> None:
    check(client, post(client, route, json.dumps(value).encode()))


@pytest.mark.parametrize("route", VALID)
@often
@given(body=st.binary(max_size=64), content_type=content_types)
def test_any_bytes_of_any_type(client: httpx.Client, route: str, body: bytes, content_type: str) -> None:
    check(client, post(client, route, body, content_type))


@pytest.mark.parametrize("route", VALID)
@often
@given(data=st.data())
def test_cut_and_damaged_bodies(client: httpx.Client, route: str, data: st.DataObject) -> None:
    whole = json.dumps(VALID[route]).encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    patch = data.draw(st.binary(max_size=3))
    rest = data.draw(st.sampled_from([b"", whole[at + 1 :]]))
    check(client, post(client, route, whole[:at] + patch + rest, data.draw(content_types)))


@pytest.mark.parametrize("route", ALL)
def test_every_field_with_every_kind_of_value(
    client: httpx.Client, fields: dict[str, list[str]], route: str
) -> None:
    kinds: list[Any] = [None, True, -1, 2**64, 1.5, float("nan"), "", "\ud800", [], {}, [None], {"a": None}]
    for field in fields[route]:
        for value in kinds:
            body = json.dumps({**ALL[route], field: value}).encode()
            check(client, post(client, route, body))


@pytest.mark.parametrize("route", ALL)
@often
@given(data=st.data())
def test_mutated_fields(
    client: httpx.Client, fields: dict[str, list[str]], route: str, data: st.DataObject
) -> None:
    body = copy.deepcopy(ALL[route])
    names = st.sampled_from(fields[route]) | texts
    for name in data.draw(st.lists(names, min_size=1, max_size=3)):
        body[name] = data.draw(values)
    check(client, post(client, route, json.dumps(body).encode()))


@often
@given(
    message=st.dictionaries(
        st.sampled_from(["role", "content", "name", "tool_calls", "tool_call_id", "refusal"]), values
    )
)
def test_mutated_messages(client: httpx.Client, message: dict[str, Any]) -> None:
    body = {**VALID[CHAT], "messages": [{"role": "user", "content": "one", **message}]}
    check(client, post(client, CHAT, json.dumps(body).encode()))


@often
@given(
    tool=st.dictionaries(st.sampled_from(["name", "description", "parameters", "strict"]), values),
    choice=st.sampled_from(["none", "auto", "required", {"type": "function"}]) | values,
)
def test_mutated_tools(client: httpx.Client, tool: dict[str, Any], choice: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", **tool}}]
    body = {**VALID[CHAT], "tools": tools, "tool_choice": choice}
    check(client, post(client, CHAT, json.dumps(body).encode()))


@often
@given(
    format=st.dictionaries(st.sampled_from(["type", "json_schema", "schema"]), values),
    wanted=st.dictionaries(st.sampled_from(["json", "regex", "choice", "grammar"]), values, max_size=2),
)
def test_mutated_structures(client: httpx.Client, format: dict[str, Any], wanted: dict[str, Any]) -> None:
    for kind in ("text", "json_object", "json_schema"):
        body = {**VALID[CHAT], "response_format": {"type": kind, **format}}
        check(client, post(client, CHAT, json.dumps(body).encode()))
    body = {**VALID[CHAT], "structured_outputs": wanted}
    check(client, post(client, CHAT, json.dumps(body).encode()))


@often
@given(part=st.dictionaries(st.sampled_from(["type", "text", "image_url", "other"]), values))
def test_mutated_content_parts(client: httpx.Client, part: dict[str, Any]) -> None:
    content = [{"type": "text", "text": "one", **part}]
    body = {**VALID[CHAT], "messages": [{"role": "user", "content": content}]}
    check(client, post(client, CHAT, json.dumps(body).encode()))


@pytest.mark.parametrize("stream", [False, True])
@often
@given(text=texts, stop=st.lists(texts, max_size=3), seed=st.integers(-(2**63), 2**63 - 1))
def test_any_text_is_answered(
    client: httpx.Client, stream: bool, text: str, stop: list[str], seed: int
) -> None:
    body = {**VALID[COMPLETIONS], "prompt": text, "stop": stop, "seed": seed, "stream": stream, "logprobs": 2}
    check(client, post(client, COMPLETIONS, json.dumps(body).encode()))


ENDLESS = "/v1/system/events"
ODD_SEGMENTS = [
    b"%", b"\x00", b"\xff", b"\xed\xa0\x80", b"..", b"../..", b"%2e%2e", b"\\", b"?", b"#", b";", b" ",
    b"\r\n", b"fake/..", b"FAKE", b"fake\x00", b"a" * 8000, "fak\u00e9".encode(), b"{model}", b"<script>",
    b"'", b'"', b"//",
]  # fmt: skip


@pytest.mark.parametrize("segment", ODD_SEGMENTS, ids=lambda segment: repr(segment[:12]))
def test_odd_paths(client: httpx.Client, segment: bytes) -> None:
    check_get_routes(client, quote(segment, safe=""))


@often
@given(segment=st.binary(min_size=1, max_size=24))
def test_any_path(client: httpx.Client, segment: bytes) -> None:
    check_get_routes(client, quote(segment, safe=""))


def check_get_routes(client: httpx.Client, segment: str) -> None:
    """Ask every documented GET route that has a parameter, and all others with something behind them."""
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        if "get" not in operations:
            continue
        if path == ENDLESS and not unquote(segment).strip("/"):
            continue  # slashes at its end change nothing
        start, brace, _ = path.partition("{")
        response = client.get(f"{start}{segment}" if brace else f"{path}/{segment}")
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            check_envelope(response)
