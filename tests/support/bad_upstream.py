"""An upstream that answers as a test says, down to the bytes: real sockets, no HTTP library in between."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.dialects.openai.wire import WIRE
from balancer.call import Reply, ResumePoint
from balancer.errors import BackendFailed
from balancer.proxy.client import ProxyClient
from support.meter import Meter

CERTIFICATES = Path(__file__).parent / "certificates"
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 3},
}
DOCUMENT = json.dumps({"object": "chat.completion", "choices": [], "usage": USAGE}).encode()
EVENTS = [
    b'data: {"choices":[{"delta":{"content":"Hel"}}],"usage":null}\n\n',
    b'data: {"choices":[{"delta":{"content":"lo"}}],"usage":null}\n\n',
    b'data: {"choices":[],"usage":%s}\n\n' % json.dumps(USAGE).encode(),
    b"data: [DONE]\n\n",
]
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"


@dataclass
class Request:
    """What was received: the first line, headers by name in lower case, the body."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Wire:
    """The connection that a request came on. ``send`` returns when the bytes left, or as much as fits."""

    writer: asyncio.StreamWriter

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def chunk(self, *parts: bytes) -> None:
        await self.send(*(b"%x\r\n%s\r\n" % (len(part), part) for part in parts))

    def reset(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Wire], Awaitable[None]]


@dataclass
class BadUpstream:
    """``scripts`` answer one request each; the last one all that follow. Probes (GET) are answered by
    ``probed`` if that is given. ``lost`` is set when a client is gone while its script runs."""

    url: str = ""
    port: int = 0
    scripts: list[Script] = field(default_factory=list)
    probed: Script | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while (request := await _read(reader, number)) is not None:
                self.requests.append(request)
                await self._run(self._script(request), reader, Wire(writer))
        except (OSError, asyncio.IncompleteReadError):
            self.lost.set()
        finally:
            writer.close()

    def _script(self, request: Request) -> Script:
        if self.probed is not None and request.line.startswith("GET "):
            return self.probed
        return self.scripts[0] if len(self.scripts) == 1 else self.scripts.pop(0)

    async def _run(self, script: Script, reader: asyncio.StreamReader, wire: Wire) -> None:
        """Run ``script``, and see when the client leaves before its end."""
        running = asyncio.ensure_future(script(wire))
        watching = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((running, watching), return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                self.lost.set()
                wire.reset()
        finally:
            for task in (running, watching):
                task.cancel()
            await asyncio.gather(running, watching, return_exceptions=True)


@asynccontextmanager
async def bad_upstream(
    *scripts: Script, tls: bool = False, probed: Script | None = None
) -> AsyncIterator[BadUpstream]:
    """``tls``: it is https, with the certificate in `CERTIFICATES`."""
    upstream = BadUpstream(scripts=list(scripts), probed=probed)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):  # the test is over
            await upstream.serve(reader, writer)

    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATES / "server.pem")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    upstream.port = server.sockets[0].getsockname()[1]
    upstream.url = f"https://localhost:{upstream.port}/v1" if tls else f"http://127.0.0.1:{upstream.port}/v1"
    try:
        yield upstream
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, connection: int) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(header.split(": ", 1) for header in lines if header)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(line, headers, body, connection)


# -- asking ----------------------------------------------------------------------------------------


async def ask(
    relay: ProxyClient,
    upstream: BadUpstream,
    meter: Meter | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
    key: str | None = None,
) -> Reply:
    """``relay``'s answer to a small chat request."""
    url = upstream.url + "/chat/completions"
    return await relay.post(url, headers, b'{"model":"m"}', wire=WIRE, meter=meter or Meter(), key=key)


async def ask_worker(
    relay: ProxyClient,
    worker: BadUpstream,
    meter: Meter | None = None,
    begun: ResumePoint | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> Reply:
    """``relay``'s answer to the same request to a worker."""
    return await relay.post_to_worker(
        worker.url + "/chat/completions",
        headers,
        b'{"model":"m"}',
        resume_point=begun,
        wire=WIRE,
        meter=meter or Meter(),
        key="secret",
        request_id="r",
    )


async def read(reply: Reply) -> bytes:
    """The whole body. Raises `BackendFailed`."""
    return b"".join([data async for data in reply.body])


async def read_until_failure(reply: Reply) -> tuple[bytes, str]:
    """What came of a body that breaks off, and the reason."""
    got = b""
    try:
        async for data in reply.body:
            got += data
    except BackendFailed as failure:
        return got, failure.message
    raise AssertionError("the body ended as if it were whole")


# -- scripts ----------------------------------------------------------------------------------------


def answer(
    body: bytes = DOCUMENT,
    *headers: bytes,
    status: bytes = b"200 OK",
    type: bytes = b"application/json",
    length: int | None = None,
) -> Script:
    """A whole answer; with ``length``, one whose Content-Length says something else."""
    length = len(body) if length is None else length
    lines = [b"content-type: " + type, b"content-length: %d" % length, *headers]

    async def script(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 %s\r\n%s\r\n\r\n%s" % (status, b"\r\n".join(lines), body))

    return script


def raw(*parts: bytes, close: bool = True) -> Script:
    """Just these bytes, and then the end of the connection or nothing at all."""

    async def script(wire: Wire) -> None:
        await wire.send(*parts)
        if close:
            wire.writer.close()
        else:
            await asyncio.Event().wait()

    return script


async def reset(wire: Wire) -> None:
    wire.reset()


def events(*parts: bytes, headers: bytes = b"", then: Script | None = None) -> Script:
    """An event stream in chunks; ``then`` is done instead of ending it."""

    async def script(wire: Wire) -> None:
        await wire.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n%s\r\n"
            % headers
        )
        await wire.chunk(*parts)
        await (wire.send(b"0\r\n\r\n") if then is None else then(wire))

    return script


async def hang(wire: Wire) -> None:
    await asyncio.Event().wait()


async def flood_headers(wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await wire.send(b"x-header: %s\r\n" % (b"a" * 1000))


def flood(head: bytes, part: bytes) -> Script:
    """``head``, and then ``part`` for ever."""

    async def script(wire: Wire) -> None:
        await wire.send(head)
        while True:
            await wire.send(part)

    return script


def flood_events(count: int, size: int, sent: list[int]) -> Script:
    """``count`` events of ``size`` bytes; ``sent`` has how many left."""

    async def flood(wire: Wire) -> None:
        for number in range(count):
            await wire.chunk(b"data: %s\n\n" % (b"x" * (size - 8)))
            sent.append(number)
        await wire.chunk(EVENTS[-1])
        await wire.send(b"0\r\n\r\n")

    return events(then=flood)
