"""Faults of upstreams as clients see them, through the whole server: which status and which code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from balancer.backends.upstream_config import Upstream
from support.bad_upstream import (
    DOCUMENT,
    EVENTS,
    Script,
    answer,
    bad_upstream,
    events,
    flood,
    hang,
    raw,
    reset,
)
from support.server import LiveServer, live_server, wait_until

CHAT = "/v1/chat/completions"
KEY = "sk-1234567890abcdefghijklmnop"
HELLO = [{"role": "user", "content": "Hello"}]
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
BAD, AWAY = (502, "bad_gateway"), (503, "no_backend")

numbers = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    base: Path = tmp_path_factory.mktemp("models")
    with live_server(
        inference_engine="fake",
        model_base_path=base,
        first_byte_timeout=0.1,
        stall_timeout=0.1,
        load_balance_strategy="prefix_aware",
    ) as server:
        yield server


@pytest.fixture
async def client(server: LiveServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=10) as client:
        yield client


@asynccontextmanager
async def upstream(client: httpx.AsyncClient, script: Script, **options: Any) -> AsyncIterator[str]:
    """The name of a model that only an upstream has, which answers by ``script``; to probes as well, if its
    ``models`` are to be learnt from it."""
    probed = answer(b"{}") if options.get("models", True) else None
    async with bad_upstream(script, probed=probed) as bad:
        name = f"far{next(numbers)}"
        body = {"url": bad.url, "name": name, "api_key": KEY, "models": {name: "theirs"}} | options
        assert (await client.post("/v1/cluster/upstreams", json=body)).status_code == 201
        yield name
        await client.delete(f"/v1/cluster/upstreams/{name}")


async def ask(client: httpx.AsyncClient, model: str, **body: Any) -> httpx.Response:
    return await client.post(CHAT, json={"model": model, "messages": HELLO, **body})


def refusal(reply: httpx.Response) -> tuple[int, str]:
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return reply.status_code, error["code"]


# -- what nobody else can serve ---------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (answer(b"", b"Location: https://elsewhere.test/v1", status=b"307 There"), BAD),
        (answer(b"", status=b"304 Same"), BAD),
        (raw(b"HTTP/1.1 042 Odd\r\ncontent-length: 2\r\n\r\n{}", close=False), BAD),
        (raw(b"HTTP/1.1 600 Odd\r\ncontent-length: 2\r\n\r\n{}", close=False), BAD),
        (raw(b"HTTP/1.1 999 Odd\r\n\r\n"), BAD),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), BAD),
        (raw(b"HTTP/1.1 101 Switch\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"), BAD),
        (flood(b"HTTP/1.1 200 OK\r\n", b"x: " + b"a" * 1000 + b"\r\n"), BAD),
        (events(), BAD),
        (answer(b""), BAD),
        (answer(b"", status=b"204 No Content"), BAD),
        (answer(b"<html>", type=b"text/html"), BAD),
        (answer(b"{}", status=b"401 No"), BAD),
        (answer(b"{}", status=b"403 No"), BAD),
        (answer(b"{}", status=b"407 No"), BAD),
        (raw(), AWAY),
        (reset, AWAY),
        (raw(JSON + b"content-length: 5\r\n\r\n"), AWAY),
        (hang, AWAY),
    ],
)
async def test_faults_and_their_codes(
    client: httpx.AsyncClient, script: Script, expected: tuple[int, str], stream: bool
) -> None:
    async with upstream(client, script) as model:
        reply = await ask(client, model, stream=stream)
    assert refusal(reply) == expected
    assert ("retry-after" in reply.headers) is (expected is AWAY)


async def test_a_server_that_is_not_there(client: httpx.AsyncClient) -> None:
    async with upstream(client, answer(), url="http://127.0.0.1:9/v1") as model:
        assert refusal(await ask(client, model)) == AWAY


async def test_a_certificate_that_nobody_trusts(client: httpx.AsyncClient) -> None:
    async with bad_upstream(answer(), tls=True) as tls, upstream(client, answer(), url=tls.url) as model:
        reply = await ask(client, model)
    assert refusal(reply) == BAD
    assert "certificate" in reply.json()["error"]["message"]


async def test_no_client_is_told_of_the_key(client: httpx.AsyncClient) -> None:
    """A refused key is this server's, not the client's; in no other error it is to be read."""
    said = json.dumps({"error": {"message": f"Incorrect API key: {KEY} ({KEY[:7]}***{KEY[-4:]})"}}).encode()
    for status, expected in [(b"401 No", 502), (b"403 No", 502), (b"400 Bad", 400), (b"500 Oops", 500)]:
        async with upstream(client, answer(said, status=status)) as model:
            reply = await ask(client, model)
            assert reply.status_code == expected
            assert KEY not in reply.text
            if expected == 502:
                assert KEY[:7] not in reply.text
                assert "WWW-Authenticate" not in reply.headers
            status_page = await client.get("/v1/cluster/status")
            assert KEY[:7] not in status_page.text


async def test_another_backend_serves_what_one_refuses(client: httpx.AsyncClient) -> None:
    async with (
        upstream(client, answer(status=b"401 No"), name="one", models={"both": "x"}),
        upstream(client, answer(status=b"302 There"), name="two", models={"both": "x"}),
        upstream(client, answer(), name="three", models={"both": "x"}),
    ):
        replies = [await ask(client, "both") for _ in range(4)]
        assert [reply.status_code for reply in replies] == [200] * 4
        assert {reply.headers["x-enginehouse-backend"] for reply in replies} == {"three"}
        for name in ("one", "two", "three"):
            await client.delete(f"/v1/cluster/upstreams/{name}")


# -- what passes ------------------------------------------------------------------------------------


async def test_headers_of_theirs_do_not_replace_ours(client: httpx.AsyncClient) -> None:
    headers = [
        b"x-enginehouse-backend: theirs",
        b"x-request-id: theirs",
        b"set-cookie: a=b",
        b"server: theirs",
        b"access-control-allow-origin: *",
        b"keep-alive: timeout=1",
        b"retry-after: 99999999",
        b"x-ratelimit-remaining: 3",
    ]
    async with upstream(client, answer(DOCUMENT, *headers)) as model:
        reply = await ask(client, model)
    assert (reply.status_code, reply.content) == (200, DOCUMENT)
    assert reply.headers["x-enginehouse-backend"] == model
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["retry-after"] == "3600"
    assert reply.headers["x-ratelimit-remaining"] == "3"
    for name in ("set-cookie", "access-control-allow-origin", "keep-alive"):
        assert name not in reply.headers
    assert "theirs" not in str(reply.headers)


@pytest.mark.parametrize("type_", [b"text/event-stream", b"application/json"])
async def test_half_a_stream_with_a_length(
    server: LiveServer, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, type_: bytes
) -> None:
    """The event that says what happened is more than the upstream announced. The server's log has no trace
    of an exception."""
    script = answer(EVENTS[0], type=type_, length=len(EVENTS[0]) + 5)
    async with upstream(client, script) as model:
        if type_ == b"text/event-stream":
            reply = await ask(client, model, stream=True)
            assert reply.text.startswith(EVENTS[0].decode())
            assert '"code":"no_backend"' in reply.text
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                await ask(client, model, stream=True)
    assert "Traceback" not in caplog.text


async def test_counts_that_are_none(client: httpx.AsyncClient) -> None:
    """An answer is whole however many tokens it says it has."""
    for number in (b"1" + b"0" * 400, b"1" + b"0" * 3000, b"-5", b"1e400", b"NaN", b"[]", b'"7"', b"true"):
        body = b'{"usage":{"prompt_tokens":%s,"completion_tokens":%s}}' % (number, number)
        async with upstream(client, answer(body)) as model:
            reply = await ask(client, model)
            assert (reply.status_code, reply.content) == (200, body)
    for route in ("/metrics", "/v1/system/metrics"):
        assert (await client.get(route)).status_code == 200


async def test_many_places_where_counts_could_be(client: httpx.AsyncClient) -> None:
    body = b"[" + b'"usage",' * 100_000 + b"0]"
    async with upstream(client, answer(body)) as model:
        assert (await ask(client, model)).content == body


# -- requests that nest -----------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [129, 200, 900, 1000, 5000])
@pytest.mark.parametrize("field", ["messages", "metadata"])
async def test_requests_that_nest_too_deep(client: httpx.AsyncClient, depth: int, field: str) -> None:
    async with upstream(client, answer()) as model, upstream(client, answer(), models={model: "x"}):
        nested = "[" * depth + "]" * depth
        reply = await client.post(CHAT, content=f'{{"model":"{model}","{field}":{nested}}}')
        assert refusal(reply) == (400, "invalid_request_error")
        assert "it nests" in reply.json()["error"]["message"]
        assert (await ask(client, model)).status_code == 200


async def test_requests_that_nest_as_tools_do(client: httpx.AsyncClient) -> None:
    nested = json.loads('{"a":' * 120 + "[{}]" + "}" * 120)
    wide = [{"x": [1]}] * 1000
    async with upstream(client, answer()) as model:
        assert (await ask(client, model, tools=nested, metadata=wide)).status_code == 200


# -- lists of models --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        answer(b'{"data":' + b"[" * 100_000),
        answer(b'{"data":[{"id":NaN}, {"id":{}}]}'),
        answer(b'{"data":"x"}'),
        answer(b"\xff\xfe"),
        answer(b"[" + b"0," * 1_000_000 + b"0]"),
        raw(JSON + b"\r\n" + b"[" * 5_000_000, close=False),
        flood(JSON + b"\r\n", b" " * 100_000),
    ],
    ids=["deep", "no names", "text", "no text", "long", "too long", "endless"],
)
async def test_lists_that_are_none(client: httpx.AsyncClient, server: LiveServer, script: Script) -> None:
    async with upstream(client, script, models={}) as name:
        await asyncio.to_thread(wait_until, lambda: server.call(lambda: _has_looked(server, name)))
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.get("/v1/system/health")).status_code == 200
        assert (await client.get("/v1/cluster/status")).json()["upstreams"][name]["models"] == []


def _has_looked(server: LiveServer, name: str) -> bool:
    backend = server.house.fleet.upstreams.find(name)
    assert backend is not None
    return bool(backend.status().detail)


# -- addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("names_it", [True, False])
async def test_a_name_that_leads_where_no_upstream_may_be(tmp_path: Path, names_it: bool) -> None:
    """Whoever named it: the settings, or an administrator at a time when the name led elsewhere."""
    async with bad_upstream(answer()) as bad:
        url = f"http://localhost:{bad.port}/v1"
        settings = {"upstreams": f"{url}#model=far"} if names_it else {}
        with live_server(
            inference_engine="fake", model_base_path=tmp_path, allowed_upstreams="10.0.0.0/8", **settings
        ) as server:
            if not names_it:
                connect = server.house.cluster.operations._connect
                server.call(lambda: connect(Upstream("far", url, models={"far": "far"})))
            async with httpx.AsyncClient(base_url=server.url) as client:
                reply = await ask(client, "far")
        assert refusal(reply) == BAD
        assert "is not allowed as an upstream" in reply.json()["error"]["message"]
        assert bad.connections == 0
