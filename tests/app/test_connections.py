"""What clients may do to connections, over sockets against uvicorn."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from app import connections
from app.body_memory import BodyMemory
from app.connections import HIGH_WATER, MAX_HEAD_BYTES, MAX_HEADERS, ClientPatience, EdgeConnection
from support.live import LiveApp, wait_until
from support.server import live_server

PATIENCE = 0.2
IDLE = 0.5
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
BIG = 64 * 2**20
MOST_BODY_BYTES = 2**20


class App:
    """Answers with as many bytes as the path asks for, once it has read the body; `ended` counts."""

    def __init__(self) -> None:
        self.began = self.ended = 0
        self.headers: list[Any] = []
        self.reads = True
        self.gate: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.began += 1
        try:
            message: Any = None
            while self.reads and (message := await receive()).get("more_body"):
                pass
            if message is not None and message["type"] == "http.disconnect":
                return
            if self.gate is not None:
                await self.gate.wait()
            self.headers = list(scope["headers"])
            await self._answer(int(scope["path"].strip("/") or 2), send)
        finally:
            self.ended += 1

    async def _answer(self, size: int, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while size > 0:
            piece = min(size, 2**16)
            await send({"type": "http.response.body", "body": b"x" * piece, "more_body": True})
            size -= piece
        await send({"type": "http.response.body", "body": b""})


class Exchangeable:
    """The app of a server that several tests share, each with an `App` of its own."""

    current = App()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.current(scope, receive, send)


@pytest.fixture(scope="module")
def served() -> Iterator[LiveApp]:
    patience, bodies = ClientPatience(PATIENCE, PATIENCE, idle=IDLE), BodyMemory(MOST_BODY_BYTES)
    http = partial(EdgeConnection, patience=patience, bodies=bodies)
    live = LiveApp(Exchangeable(), http=http, lifespan="off", ws="none", timeout_graceful_shutdown=1)
    live.start()
    yield live
    live.stop()


@pytest.fixture
def app(served: LiveApp) -> App:
    served.app.current = App()
    return served.app.current  # type: ignore[no-any-return]


Connect = Callable[..., socket.socket]


@pytest.fixture
def connect(served: LiveApp) -> Iterator[Connect]:
    opened: list[socket.socket] = []

    def connect(data: bytes = b"", buffer: int | None = None) -> socket.socket:
        client = socket.socket()
        client.settimeout(5)
        if buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.connect(("127.0.0.1", served.port))
        opened.append(client)
        client.sendall(data)
        return client

    yield connect
    for client in opened:
        client.close()


def rest_of(client: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    got = b""
    try:
        while data := client.recv(2**16):
            got += data
    except ConnectionError:
        pass
    return got


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def test_a_usual_request_is_answered_and_the_connection_is_kept(app: App, connect: Connect) -> None:
    client = connect(GET)
    for _ in range(2):
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            answer += client.recv(2**16)
        assert answer.startswith(b"HTTP/1.1 200")
        client.sendall(GET)


def test_headers_of_the_largest_size_pass(app: App, connect: Connect) -> None:
    value = b"v" * (MAX_HEAD_BYTES - len(GET) - 10)
    client = connect(GET[:-2] + b"a: " + value + b"\r\n\r\n")
    assert client.recv(2**16).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [
        GET[:-2] + b"a: " + b"v" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET /" + b"v" * 4 * MAX_HEAD_BYTES,
        GET[:-2] + b"a: v\r\n" * MAX_HEADERS + b"\r\n",
        b"\r\n" * MAX_HEAD_BYTES,
        CHUNKED + b"1;" + b"e" * 2 * MAX_HEAD_BYTES,
        CHUNKED + b"1\r\nx\r\n0\r\n" + b"a: v\r\n" * MAX_HEAD_BYTES,
    ],
    ids=["value", "path", "many", "empty lines", "chunk extension", "trailers"],
)
def test_larger_headers_are_refused(app: App, connect: Connect, head: bytes) -> None:
    assert error_of(rest_of(connect(head))) == (431, "headers_too_large")


def test_large_headers_are_refused_however_they_are_cut(app: App, connect: Connect) -> None:
    client = connect(GET[:-2])
    for _ in range(8):
        client.sendall(b"a: " + b"v" * (MAX_HEAD_BYTES // 8) + b"\r\n")
        time.sleep(0.005)
    assert error_of(rest_of(client)) == (431, "headers_too_large")


def test_who_goes_on_sending_headers_reads_the_refusal_and_is_cut(
    app: App, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_LINGER_SECONDS", 0.1)
    client = connect(GET[:-2] + b"a: " + b"v" * 2 * MAX_HEAD_BYTES)
    answer = client.recv(2**16)
    assert error_of(answer) == (431, "headers_too_large")

    def is_cut() -> bool:
        try:
            client.send(b"v" * 2**16)
        except ConnectionError:
            return True
        return False

    wait_until(is_cut, 3)


def test_a_long_body_is_not_taken_for_headers(app: App, connect: Connect) -> None:
    body = b"v" * (4 * MAX_HEAD_BYTES)
    client = connect(POST + b"content-length: %d\r\n\r\n" % len(body) + body)
    assert client.recv(2**16).startswith(b"HTTP/1.1 200")


def test_large_bodies_have_so_much_memory_together(app: App, served: LiveApp, connect: Connect) -> None:
    """Whoever comes when it is used up is told to come again; it is back once the others have ended."""
    body = b"v" * (MOST_BODY_BYTES // 2 - 10)
    request = POST + b"content-length: %d\r\n\r\n" % len(body) + body
    app.gate = served.call(asyncio.Event)
    first, second = connect(request), connect(request)
    wait_until(lambda: app.began == 2)
    wait_until(lambda: sum(each._held for each in connections_of(served)) > MOST_BODY_BYTES - 2**17)
    answer = rest_of(connect(request))
    assert error_of(answer) == (503, "insufficient_memory")
    assert b"retry-after: 1\r\n" in answer
    small = connect(POST + b"content-length: 4\r\n\r\nbody")
    served.call(app.gate.set)
    for client in (first, second, small, connect(request)):
        assert client.recv(2**16).startswith(b"HTTP/1.1 200")


def test_trailers_are_no_headers(app: App, connect: Connect) -> None:
    client = connect(CHUNKED + b"1\r\nx\r\n0\r\nauthorization: Bearer x\r\n\r\n")
    assert client.recv(2**16).startswith(b"HTTP/1.1 200")
    assert b"authorization" not in dict(app.headers)


@pytest.mark.parametrize(
    "part", [GET[:5], GET[:-2], POST + b"content-length: 9\r\n\r\nv", CHUNKED + b"1\r\nx\r\n"]
)
def test_a_request_that_does_not_go_on_is_answered_408(app: App, connect: Connect, part: bytes) -> None:
    began = time.monotonic()
    assert error_of(rest_of(connect(part))) == (408, "request_timeout")
    assert PATIENCE <= time.monotonic() - began < 3
    wait_until(lambda: app.ended == app.began)


@pytest.mark.parametrize("drop", [b"1\r\nx\r\n", b"1;ext\r\nx\r\n"])
def test_a_body_that_trickles_ends(app: App, connect: Connect, drop: bytes) -> None:
    client = connect(CHUNKED)
    client.settimeout(0.02)
    answer = b""
    for _ in range(200):
        client.sendall(drop)
        try:
            answer = client.recv(2**16)
            break
        except TimeoutError:
            continue
    assert error_of(answer) == (408, "request_timeout")


def test_a_slow_body_that_comes_on_is_read_to_its_end(app: App, connect: Connect) -> None:
    client = connect(POST + b"content-length: %d\r\n\r\n" % (20 * 2**14))
    for _ in range(20):
        client.sendall(b"v" * 2**14)
        time.sleep(0.025)
    assert client.recv(2**16).startswith(b"HTTP/1.1 200")


def test_silence_ends_without_a_word(app: App, connect: Connect) -> None:
    clients = [connect() for _ in range(50)]
    assert connect(GET).recv(2**16).startswith(b"HTTP/1.1 200")
    assert [rest_of(client) for client in clients] == [b""] * 50


def test_empty_lines_keep_no_connection(app: App, connect: Connect) -> None:
    client = connect(GET)
    client.recv(2**16)
    client.settimeout(0.02)
    began = time.monotonic()
    while time.monotonic() - began < 3:
        try:
            client.sendall(b"\r\n")
            if b"408" in client.recv(2**16):
                return
        except TimeoutError:
            continue
    pytest.fail("it was kept")


@pytest.mark.parametrize("refused", [False, True])
def test_between_two_requests_a_client_has_longer(app: App, connect: Connect, refused: bool) -> None:
    """Also behind a body that arrived after its answer, when uvicorn's own timer does not run any more."""
    app.reads = not refused
    client = connect(POST + b"content-length: 1\r\n\r\n")
    if refused:
        client.recv(2**16)
    client.sendall(b"1")
    began = time.monotonic()
    assert b"408" not in rest_of(client)
    assert IDLE * 0.8 < time.monotonic() - began < IDLE + 3 * PATIENCE


def test_who_takes_nothing_is_cut(app: App, connect: Connect) -> None:
    client = connect(GET.replace(b"/", b"/%d" % BIG, 1), buffer=4096)
    wait_until(lambda: app.ended == 1, 3)
    assert len(rest_of(client)) < BIG


def test_what_fits_the_buffer_waits_without_its_request_and_not_for_ever(
    app: App, served: LiveApp, connect: Connect
) -> None:
    client = connect(GET.replace(b"/", b"/%d" % (HIGH_WATER // 2), 1), buffer=4096)
    wait_until(lambda: app.ended == 1)
    assert connections_of(served), "it ended because its client was cut"
    wait_until(lambda: not connections_of(served), 3)
    client.close()


def test_who_reads_slowly_gets_everything(app: App, connect: Connect) -> None:
    size = 8 * HIGH_WATER
    client = connect(GET.replace(b"/", b"/%d" % size, 1), buffer=2**18)
    got = 0
    while got < size:
        got += len(client.recv(2**19))
        time.sleep(0.002)
    assert app.ended == 1


@pytest.mark.parametrize(
    ("data", "answers"),
    [(b"nonsense\r\n\r\n", 0), (b"CONNECT a:1 HTTP/1.1\r\n\r\n", 0), (GET + b"nonsense\r\n\r\n", 1)],
)
def test_garbage_is_refused_in_the_envelope(app: App, connect: Connect, data: bytes, answers: int) -> None:
    client = connect(data)
    got = rest_of(client)
    assert got.count(b"HTTP/1.1 200") == answers
    if not answers:
        assert error_of(got) == (400, "invalid_request_error")


def test_garbage_in_a_body_ends_its_request(app: App, connect: Connect) -> None:
    assert error_of(rest_of(connect(CHUNKED + b"nonsense\r\n"))) == (400, "invalid_request_error")
    wait_until(lambda: app.ended == 1)  # it may begin after its answer, and must not in the next test


def test_an_answer_on_its_way_is_not_damaged_by_what_is_sent_behind_it(
    app: App, served: LiveApp, connect: Connect
) -> None:
    app.gate = served.call(asyncio.Event)
    client = connect(GET)
    wait_until(lambda: app.began == 1)
    client.sendall(b"nonsense\r\n\r\n")
    time.sleep(0.02)
    served.call(app.gate.set)
    got = rest_of(client)
    assert got.startswith(b"HTTP/1.1 200")
    assert got.count(b"HTTP/1.1") == 1


def test_a_flood_of_pipelined_requests_ends(app: App, served: LiveApp, connect: Connect) -> None:
    app.gate = served.call(asyncio.Event)
    client = connect(GET * 1000)
    wait_until(lambda: app.began == 1)
    time.sleep(0.02)
    served.call(app.gate.set)
    client.settimeout(0.1)
    assert client.recv(2**16).startswith(b"HTTP/1.1 200")
    assert app.began < 20


def test_a_client_that_is_gone_ends_its_request(app: App, served: LiveApp, connect: Connect) -> None:
    client = connect(POST + b"content-length: 9\r\n\r\nv")
    wait_until(lambda: app.began == 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    wait_until(lambda: app.ended == 1)


def connections_of(served: LiveApp) -> set[Any]:
    return served.server.server_state.connections


def test_readers_that_do_not_read_give_their_places_back() -> None:
    """With one place, the next request is served although nobody reads the answers before it."""
    wanted = {"model": "fake", "prompt": "a b c", "stream": True, "ignore_eos": True, "logprobs": 5}
    with live_server(inference_engine="fake", max_concurrent_requests=1) as server:
        # What is accepted inherits it: an answer must not fit into the system's own buffers.
        server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        idle = [open_request(server, {**wanted, "max_tokens": 1500}, buffer=4096) for _ in range(2)]
        last = open_request(server, {**wanted, "max_tokens": 4})
        assert b"200 OK" in last.recv(2**16)
        for client in (*idle, last):
            client.close()


def test_queries_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        live_server(inference_engine="fake") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as client,
    ):
        client.sendall(GET.replace(b"/", b"/v1/models?key=secret", 1) + b"nonsense?key=secret\r\n\r\n")
        assert b"200 OK" in rest_of(client)
    assert "secret" not in caplog.text


def open_request(server: LiveApp, wanted: dict[str, Any], buffer: int = 2**16) -> socket.socket:
    body = json.dumps(wanted).encode()
    client = socket.socket()
    client.settimeout(10)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.connect(("127.0.0.1", server.port))
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    client.sendall(head + body)
    return client
