from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import httpx
import pytest
import uvicorn
from fastapi import Body, FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import error_responses
from app.middleware.body_limit import BodyLimitMiddleware

LIMIT = 100


def make_app() -> FastAPI:
    app = FastAPI()
    error_responses.install(app)

    @app.post("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    @app.post("/json")
    async def as_json(body: Annotated[Any, Body()]) -> int:
        return len(json.dumps(body))

    @app.post("/careless")
    async def careless(request: Request) -> str:
        try:
            await request.body()
        except Exception:
            return "I did not notice"
        return "ok"

    app.add_middleware(BodyLimitMiddleware, max_bytes=LIMIT)
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def chunks(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"1" * size


def assert_refused(response: httpx.Response) -> None:
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    assert "100 bytes" in response.json()["error"]["message"]


async def test_a_body_of_exactly_the_limit_passes(client: httpx.AsyncClient) -> None:
    assert (await client.post("/raw", content=b"1" * LIMIT)).json() == LIMIT
    assert (await client.post("/raw", content=chunks(60, 40))).json() == LIMIT


@pytest.mark.parametrize("path", ["/raw", "/json", "/careless", "/nowhere"])
async def test_an_announced_body_over_the_limit_is_413(client: httpx.AsyncClient, path: str) -> None:
    assert_refused(await client.post(path, content=b"1" * (LIMIT + 1)))


@pytest.mark.parametrize("path", ["/raw", "/json", "/careless"])
async def test_a_chunked_body_over_the_limit_is_413(client: httpx.AsyncClient, path: str) -> None:
    headers = {"content-type": "application/json"}
    assert_refused(await client.post(path, content=chunks(60, 41), headers=headers))


async def run(app: ASGIApp, headers: list[tuple[bytes, bytes]], receive: Receive) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    await BodyLimitMiddleware(app, LIMIT)(scope, receive, send)
    return sent


async def test_an_announced_body_is_refused_before_any_of_it_is_read() -> None:
    async def unused(*args: object) -> Any:
        raise AssertionError("neither the app nor the body may be touched")

    sent = await run(unused, [(b"content-length", b"101")], unused)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 413


async def test_reading_stops_with_the_chunk_that_is_too_much() -> None:
    reads = 0

    async def endless() -> Message:
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": b"1" * 60, "more_body": True}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(10):
            await receive()

    # A length beside chunked encoding is a lie that must not be believed.
    sent = await run(app, [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")], endless)
    assert sent[0]["status"] == 413
    assert reads == 2


async def test_a_fault_of_the_app_is_not_hidden() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async def receive() -> Message:
        return {"type": "http.request"}

    with pytest.raises(ZeroDivisionError):
        await run(app, [], receive)


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_the_connection_serves_on_after_a_refusal(http: str) -> None:
    pytest.importorskip(http)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(make_app(), http=http, log_config=None, lifespan="off"))
        task = asyncio.create_task(server.serve([sock]))
        try:
            await post_three_times(sock.getsockname()[1], lambda: task.done())
        finally:
            server.should_exit = True
            await task


async def post_three_times(port: int, dead: Callable[[], bool]) -> None:
    big = 4_000_000  # more than the socket's buffers hold
    address = f"http://127.0.0.1:{port}/raw"
    bodies: list[tuple[Any, int]] = [(b"1" * big, 413), (chunks(*[big // 8] * 8), 413), (b"11", 200)]
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=1)) as client:
        connections = set()
        for content, status in bodies:
            async with client.stream("POST", address, content=content) as response:
                assert response.status_code == status
                await response.aread()
                connections.add(response.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(connections) == 1, "the client had to connect again"
    assert not dead()
