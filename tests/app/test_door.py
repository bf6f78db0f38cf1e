"""What clients, proxies, probes and browsers ask for beside the routes, of one real server."""

from __future__ import annotations

import gzip
import json
import re
import socket
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import typer

from app import __version__
from app.cli.app import cli
from support.server import LiveServer, live_server, wait_until

CHAT = "/v1/chat/completions"
LIMIT = 2**18
PAGE = "https://chat.example"
COMMANDS: Any = typer.main.get_command(cli).commands  # type: ignore[attr-defined]
ASKED: dict[str, Any] = {
    "model": "fake",
    "messages": [{"role": "user", "content": "one two three"}],
    "max_tokens": 3,
}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(inference_engine="fake", cors_origins=PAGE, max_request_bytes=LIMIT) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=10) as client:
        yield client


def error(answer: httpx.Response) -> tuple[int, str, str]:
    told = answer.json()["error"]
    return answer.status_code, told["code"], told["message"]


# -- paths and methods -------------------------------------------------------------------------------


AZURES = "/openai/deployments/gpt/chat/completions?api-version=2024-10-21"


@pytest.mark.parametrize(
    "path", [f"{CHAT}/", "//v1//chat/completions", "/chat/completions", f"/v1{CHAT}", AZURES]
)
def test_a_chat_is_answered_however_its_path_is_spelt(
    server: LiveServer, client: httpx.Client, path: str
) -> None:
    answer = client.post(server.url + path, json=ASKED)
    assert (answer.status_code, answer.history) == (200, [])

    def endpoints() -> set[str]:
        return {endpoint for each in server.house.metrics.models() for endpoint, _ in each.requests}

    wait_until(lambda: endpoints() != set())  # counted once the answer has been sent
    assert endpoints() == {CHAT}


def test_every_get_route_answers_head(server: LiveServer, client: httpx.Client) -> None:
    paths = {route.path for route in server.app.routes if "GET" in (getattr(route, "methods", None) or ())}
    assert {"/", "/docs", "/health", "/version", "/openapi.json", "/v1/system/events"} <= paths
    for path in sorted(paths):
        url = path.replace("{model:path}", "fake")
        head = client.head(url)
        is_there = "_id}" not in url  # nothing is kept here
        assert (head.status_code, head.content) == (200 if is_there else 404, b""), url
        if path != "/v1/system/events":
            full = client.get(url)
            is_of_now = "system" in url or "metrics" in url
            same = ("content-type",) if is_of_now else ("content-type", "content-length")
            assert [head.headers[name] for name in same] == [full.headers[name] for name in same], url


def test_head_ends_an_endless_answer(client: httpx.Client) -> None:
    assert client.head("/v1/system/events").headers["content-type"].startswith("text/event-stream")
    assert client.get("/healthz").status_code == 200, "the connection can be used again"


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/health/"])
def test_health_as_llama_server_has_it(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_the_version(client: httpx.Client) -> None:
    assert client.get("/version").json() == {"version": __version__}


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("POST", "/embeddings", "use POST /v1/embeddings"),
        ("POST", "/v1/audio/speech", "no speech"),
        ("POST", "/classify", "classes of texts"),
        ("POST", "/completion", "llama-server's"),
        ("POST", "/openai/deployments/x/classify", "classes of texts"),
        ("GET", "/openai/assistants", "of what Azure has"),
        ("POST", "/v1/uploads", "POST /v1/files takes whole files"),
        ("POST", "/v1/chat/completion", "perhaps you mean POST /v1/chat/completions"),
        ("GET", "/v1", "POST /v1/chat/completions, POST /v1/completions, GET /v1/models"),
        ("GET", "/nowhere", "GET /docs"),
        ("POST", "/v1/" + "x" * 5000, "There is no POST /v1/xxx"),
    ],
)
def test_what_is_not_here_is_said(client: httpx.Client, method: str, path: str, words: str) -> None:
    status, code, message = error(client.request(method, path))
    assert (status, code) == (404, "unsupported_endpoint")
    assert words in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("POST", "/api/chat", "OLLAMA_API=true"),
        ("POST", "/api/copy", "OLLAMA_API=true"),
        ("GET", "/api/tags", "GET /v1/models"),
        ("GET", "/api/v0/models", "LM Studio's"),
    ],
)
def test_ollamas_clients_are_told_in_their_words(
    client: httpx.Client, method: str, path: str, words: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 404
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "OPTIONS, POST"),
        ("HEAD", CHAT, "OPTIONS, POST"),
        ("PUT", "/v1/models/fake", "DELETE, GET, HEAD, OPTIONS"),
        ("POST", "/v1/models", "GET, HEAD, OPTIONS"),
        ("DELETE", "/health", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert error(answer)[1] == "method_not_allowed"
        assert (
            f"use {' or '.join(allowed.replace(', OPTIONS', '').replace('OPTIONS, ', '').split(', '))}"
            in (error(answer)[2])
        )
    asked = client.options(path)
    assert (asked.status_code, asked.headers["allow"], asked.content) == (204, allowed, b"")


@pytest.mark.parametrize("accept", ["*/*", "text/html,application/xhtml+xml,application/json;q=0.9"])
def test_the_door_is_a_page_that_loads_nothing_from_elsewhere(client: httpx.Client, accept: str) -> None:
    page = client.get("/", headers={"Accept": accept, "Host": 'evil"><script>:80'})
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in page.text
    page = client.get("/", headers={"Accept": accept})
    assert f"curl http://127.0.0.1:{client.base_url.port}/v1/chat/completions" in page.text
    for command, option in re.findall(r"^(?:<pre>)?enginehouse (\w+) (--url)?", page.text, re.MULTILINE):
        options = [each for parameter in COMMANDS[command].params for each in parameter.opts]
        assert not option or option in options, command
    links = re.findall(r'href="([^"]+)"', page.text)
    assert {"/docs", "/v1/models", "/metrics", "/health"} <= set(links)
    assert [client.get(link).status_code for link in links] == [200] * len(links)


def test_the_door_for_programs(client: httpx.Client) -> None:
    told = client.get("/", headers={"Accept": "application/json"}).json()
    assert (told["name"], told["version"], told["model"]) == ("Enginehouse", __version__, "fake")
    assert [client.get(told[name]).status_code for name in ("docs", "health", "metrics")] == [200] * 3


# -- browsers ----------------------------------------------------------------------------------------


def test_a_browsers_first_question(client: httpx.Client) -> None:
    wanted = "authorization,content-type,x-api-key,x-stainless-arch,x-stainless-retry-count"
    headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": wanted,
        "Access-Control-Request-Private-Network": "true",
    }
    answer = client.options("/chat/completions/", headers=headers)
    told = {name.removeprefix("access-control-allow-"): value for name, value in answer.headers.items()}
    assert (answer.status_code, told["origin"], told["headers"]) == (200, PAGE, wanted)
    assert told["private-network"] == "true"
    assert client.options(CHAT, headers=headers | {"Origin": "https://evil.example"}).status_code == 400


def test_pages_can_read_every_answer(
    server: LiveServer, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError("secret")

    headers = {"Origin": PAGE}
    answers = [
        client.post(CHAT, json=ASKED, headers=headers),
        client.post(CHAT, content=b"{", headers=headers),
        client.get("/v1/nowhere", headers=headers),
        client.put(CHAT, headers=headers),
        client.post(CHAT, content=b" " * (LIMIT + 1), headers=headers),
        client.post(CHAT, content=b"x", headers=headers | {"Content-Encoding": "br"}),
    ]
    monkeypatch.setattr(server.house.metrics, "snapshot", fail)
    answers.append(client.get("/v1/system/metrics", headers=headers))
    assert [each.status_code for each in answers] == [200, 400, 404, 405, 413, 415, 500]
    assert {each.headers["access-control-allow-origin"] for each in answers} == {PAGE}
    assert {each.headers["access-control-expose-headers"] for each in answers} == {"*"}
    assert all("x-request-id" in each.headers for each in answers)
    assert "secret" not in answers[-1].text


# -- encoded bodies ----------------------------------------------------------------------------------


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-zlib.MAX_WBITS)


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("X-GZIP, identity", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
    ],
)
def test_bodies_may_be_compressed(client: httpx.Client, coding: str, encode: Any) -> None:
    asked = json.dumps(ASKED | {"user": "u" * 100_000}).encode()
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    assert client.post(CHAT, content=encode(asked), headers=headers).status_code == 200
    pieces = (
        (encode(asked)[i : i + 1] for i in range(len(encode(asked)))) if coding != "identity" else [asked]
    )
    assert client.post(CHAT, content=pieces, headers=headers).status_code == 200
    refused = client.post("/v1/models/load", content=encode(b"{}"), headers=headers)
    assert error(refused)[:2] == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("coding", "body", "status", "words"),
    [
        ("gzip", gzip.compress(b" " * (LIMIT + 1), mtime=0), 413, f"{LIMIT} bytes"),
        ("deflate", zlib.compress(b" " * 2**26), 413, f"{LIMIT} bytes"),
        ("gzip", b"no gzip", 400, "valid gzip"),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-9], 400, "ends too early"),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"more", 400, "follows its end"),
        ("deflate", b"\x78\x9c" + b"\xff" * 10, 400, "valid deflate"),
        ("br", b"x", 415, "br is not supported: send gzip"),
        ("gzip, gzip", b"x", 415, "gzip, gzip is not"),
        ("zstd", b"x", 415, "zstd"),
        ("gzip", b"", 400, "A JSON body is required"),
    ],
)
def test_what_cannot_be_decoded(
    client: httpx.Client, coding: str, body: bytes, status: int, words: str
) -> None:
    answer = client.post(CHAT, content=body, headers={"Content-Encoding": coding})
    assert answer.status_code == status
    assert words in error(answer)[2]
    assert ("accept-encoding" in answer.headers) == (status == 415)


# -- connections -------------------------------------------------------------------------------------


def ask(server: LiveServer, version: str, half_close: bool, **fields: Any) -> bytes:
    """All that comes to a client that sends one request, until the server closes."""
    body = json.dumps(ASKED | fields).encode()
    head = f"POST {CHAT} HTTP/{version}\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(head.encode() + body)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(2**16), b""))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("half_close", [False, True])
def test_clients_of_http_1_0_get_no_chunks(server: LiveServer, half_close: bool, stream: bool) -> None:
    head, _, body = ask(server, "1.0", half_close, stream=stream).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"transfer-encoding" not in head
    if stream:
        assert body.startswith(b"data: {")
        assert body.endswith(b"data: [DONE]\n\n")
    else:
        assert json.loads(body)["object"] == "chat.completion"


@pytest.mark.parametrize("stream", [False, True])
def test_who_ends_its_side_gets_its_answer(server: LiveServer, stream: bool) -> None:
    answer = ask(server, "1.1", half_close=True, stream=stream)
    assert b"HTTP/1.1 200 OK" in answer
    assert (b"[DONE]" in answer) == stream
    assert b'"finish_reason":"length"' in answer
    # Answers follow each other, and nothing stands in between.
    get = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(get * 2)
        client.shutdown(socket.SHUT_WR)
        both = b"".join(iter(lambda: client.recv(2**16), b""))
    assert both.count(b'{"status":"ok"}') == 2


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_who_is_gone_is_noticed_before_the_next_token(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, stream: bool, later: bool
) -> None:
    """A client that left looks as one that ended its side, until something is sent to it."""
    engine: Any = server.engine()
    monkeypatch.setattr(engine, "_delay", 0.5)
    monkeypatch.setattr("app.connections.PROMPT_SECONDS", 0.0 if later else 10.0)
    body = json.dumps(ASKED | {"stream": stream, "max_tokens": 5000, "ignore_eos": True}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(head + body)
        wait_until(lambda: engine.stats().running == 1)
        if stream and later:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert wait_until(lambda: engine.stats().running == 0) < 0.4
