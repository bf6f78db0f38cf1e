"""Answers that break off anywhere and go on with another engine: the client sees one stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from app.convert import chat_answers, completion_answers
from app.inference import reply as replies
from app.routers import chat, completions
from app.schemas.chat import ChatCompletionRequest
from app.schemas.completions import CompletionRequest
from app.telemetry.inference import InferenceRecord
from app.telemetry.metrics import Metrics
from balancer.call import Reply, ResumePoint
from engines.base import Chunk, GenerationRequest, TokenStream
from engines.errors import EngineError, UnsupportedFeature
from engines.fake import FakeEngine
from support.clock import Clock

TEXT = "one two 日本 three 😀four fi"
USAGE = {"stream_options": {"include_usage": True}}


class CutStream:
    """Breaks off after so many chunks."""

    def __init__(self, stream: TokenStream, chunks: int) -> None:
        self._stream = stream
        self._left = chunks
        self.close = stream.close

    def __aiter__(self) -> CutStream:
        return self

    async def __anext__(self) -> Chunk:
        if not self._left:
            raise EngineError("the engine died")
        self._left -= 1
        return await self._stream.__anext__()


class DyingEngine(FakeEngine):
    """Dies after so many chunks of its one answer."""

    def __init__(self, chunks: int) -> None:
        super().__init__()
        self._chunks = chunks

    def generate(self, request: GenerationRequest) -> Any:
        return CutStream(super().generate(request), self._chunks)


class Edge:
    """A route with what is around it left out: requests in, bytes out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock(1000.0)
        self.metrics = Metrics(list, lambda: 0)
        for module in (chat, completions):
            monkeypatch.setattr(module, "find_model", lambda _, body: (SimpleNamespace(name="m"), body, None))
            monkeypatch.setattr(module, "exchange", self._take_run)
        for module in (chat_answers, completion_answers):
            monkeypatch.setattr(module, "now", lambda: int(self.clock.now))
        monkeypatch.setattr(replies, "EVENT_DISTANCE", 0.0)

    async def run(self, body: Any, *, is_instance: bool = True, asks: bool = False) -> Callable[..., Any]:
        """What serves ``body``, given an engine and a continuation."""
        house = SimpleNamespace(is_instance=is_instance)
        headers = [(b"x-enginehouse-tokens", b"1")] if asks else []
        app = SimpleNamespace(state=SimpleNamespace(server=house))
        request = Request({"type": "http", "headers": headers, "app": app})
        is_chat = isinstance(body, ChatCompletionRequest)
        await (chat.create_chat_completion if is_chat else completions.create_completion)(body, request)
        record = InferenceRecord(
            self.metrics.for_model("m"), model="m", endpoint="/x", request_id="r", clock=self.clock
        )

        async def run(engine: FakeEngine, continuation: ResumePoint | None = None) -> Reply:
            reply: Reply = await self._run(engine, record, "r", continuation)
            return reply

        return run

    async def stream(self, body: Any, *engines: FakeEngine) -> bytes:
        """The bytes of an answer that goes to the next engine wherever one dies."""
        run = await self.run(body)
        sent = b""
        continuation = None
        for engine in engines:
            self.clock.now += 100
            reply: Reply | None = None
            try:
                reply = await run(engine, continuation)
                async for piece in reply.body:
                    sent += piece
                return sent
            except EngineError:
                if reply is not None:
                    continuation = reply.body.resume_point()
                    assert continuation is not None
            finally:
                await engine.close()
        raise AssertionError("every engine died")

    async def _take_run(self, request: Any, model: str, body: Any, run: Any, *, resumable: bool) -> Any:
        self._run, self.resumable = run, resumable


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Edge:
    return Edge(monkeypatch)


def chat_body(**fields: Any) -> ChatCompletionRequest:
    messages = [{"role": "user", "content": TEXT}]
    given = {"model": "m", "messages": messages, "stream": True, "max_tokens": 40, **fields}
    return ChatCompletionRequest.model_validate(given)


def completion_body(**fields: Any) -> CompletionRequest:
    given = {"model": "m", "prompt": TEXT, "stream": True, "max_tokens": 40, **fields}
    return CompletionRequest.model_validate(given)


BODIES = [
    chat_body(),
    chat_body(**USAGE),
    chat_body(max_tokens=9, seed=3),
    chat_body(stop=["three 😀fo", "wo 日x"], **USAGE),
    chat_body(stop=["fi and more"], ignore_eos=True),
    completion_body(),
    completion_body(echo=True, **USAGE),
    completion_body(prompt=[1 + byte for byte in "日本 😀".encode()[:-1]]),
    completion_body(stop=["two 日本 t"]),
]


async def pieces_of(reply: Reply) -> AsyncIterator[bytes]:
    async for piece in reply.body:
        yield piece


def without_created(stream: bytes, created: int) -> bytes:
    """``stream`` if all of it was created then."""
    field = b'"created":%d,' % created
    events = [event for event in stream.split(b"\n\n") if event.startswith(b"data: {")]
    assert all(field in event for event in events)
    return stream.replace(field, b"")


@pytest.mark.parametrize("body", BODIES)
async def test_a_cut_anywhere_shows_nowhere(edge: Edge, body: Any) -> None:
    whole = without_created(await edge.stream(body, FakeEngine()), int(edge.clock.now))
    assert whole.endswith(b"data: [DONE]\n\n")
    chunks = 0
    while True:
        chunks += 1
        created = int(edge.clock.now) + 100
        second = FakeEngine()
        stream = await edge.stream(body, DyingEngine(chunks), second)
        if second.last_request is None:
            break  # the answer has no more than this many chunks
        if not second.last_request.generated:
            created += 100  # not a byte was sent before
        assert without_created(stream, created) == whole
    assert chunks > 5


@pytest.mark.parametrize("body", BODIES)
async def test_many_cuts_of_one_answer(edge: Edge, body: Any) -> None:
    whole = without_created(await edge.stream(body, FakeEngine()), int(edge.clock.now))
    created = int(edge.clock.now) + 100
    # Fewer chunks might all be held back for a stop string, and nothing would ever come.
    engines = [DyingEngine(8) for _ in range(8)]
    assert without_created(await edge.stream(body, *engines), created) == whole
    assert engines[1].last_request is not None
    assert len(engines[1].last_request.generated) == 8


async def test_events_that_merge_tokens_go_on_too(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    def text(stream: bytes) -> str:
        events = [json.loads(event[6:]) for event in stream.split(b"\n\n") if event.startswith(b"data: {")]
        return "".join(event["choices"][0]["text"] for event in events)

    monkeypatch.setattr(replies, "EVENT_DISTANCE", 0.002)
    body = completion_body(prompt=[1 + byte for byte in b"0123456789" * 10], max_tokens=100)
    stream = await edge.stream(body, DyingEngine(1), DyingEngine(1), DyingEngine(2), FakeEngine())
    assert text(stream) == "0123456789" * 10


async def test_what_was_not_handed_out_is_generated_anew(edge: Edge) -> None:
    begun = ResumePoint(tuple(1 + byte for byte in b"user"), 7)
    run = await edge.run(chat_body())
    fresh, resumed = await run(FakeEngine()), await run(FakeEngine(), begun)
    assert (fresh.body.resume_point(), resumed.body.resume_point()) == (None, begun)
    await anext(resumed.body)
    continuation = resumed.body.resume_point()
    assert continuation is not None
    assert (len(continuation.token_ids), continuation.created) == (5, 7)
    for reply in (fresh, resumed):
        reply.body.close()


async def test_the_client_may_say_what_there_is(edge: Edge) -> None:
    body = chat_body(**USAGE)
    pieces = [piece async for piece in pieces_of(await (await edge.run(body))(FakeEngine()))]
    run = await edge.run(body)
    reply = await run(FakeEngine())
    for _ in range(4):
        await anext(reply.body)
    begun = reply.body.resume_point()
    reply.body.close()
    assert begun is not None
    field = {"token_ids": list(begun.token_ids), "created": begun.created}
    edge.clock.now += 50
    run = await edge.run(chat_body(**USAGE, continuation=field))
    assert [piece async for piece in pieces_of(await run(FakeEngine()))] == pieces[4:]
    # It may go on once more.
    reply = await run(FakeEngine())
    await anext(reply.body)
    again = reply.body.resume_point()
    reply.body.close()
    assert again is not None
    assert again.token_ids[: len(begun.token_ids)] == begun.token_ids
    assert [piece async for piece in pieces_of(await run(FakeEngine(), again))] == pieces[5:]


async def test_the_figures_of_a_resumed_answer(edge: Edge) -> None:
    await edge.stream(chat_body(), DyingEngine(3), DyingEngine(4), FakeEngine())
    snapshot = edge.metrics.snapshot()
    assert snapshot["requests"] == {"finished": 1, "error": 0, "aborted": 0, "refused": 0}
    prompt = len(await FakeEngine().tokenize(f"user: {TEXT}\n"))
    assert (snapshot["prompt_tokens"], snapshot["completion_tokens"]) == (prompt, prompt)
    first, later = snapshot["time_to_first_token"], snapshot["inter_token_latency"]
    assert (first["count"], first["mean"], later["count"]) == (1, 100.0, prompt - 1)
    assert later["mean"] == pytest.approx(200 / (prompt - 1))  # the client waited, twice


async def test_a_first_token_from_elsewhere_is_none_of_here(edge: Edge) -> None:
    run = await edge.run(chat_body())
    edge.clock.now += 5
    reply = await run(FakeEngine(), ResumePoint(tuple(1 + byte for byte in b"us"), 7))
    assert [piece async for piece in pieces_of(reply)]
    snapshot = edge.metrics.snapshot()
    assert snapshot["time_to_first_token"]["count"] == 0
    assert snapshot["inter_token_latency"]["mean"] == 0


class Announced:
    """What a parent reads of its instance's stream: events without comments, and what the comments say."""

    def __init__(self, stream: bytes) -> None:
        self.events: list[bytes] = []
        self.token_ids: list[tuple[int, ...]] = []  # for each event
        self.usage: dict[str, int] = {}
        for event in stream.split(b"\n\n")[:-1]:
            self._read(event.split(b"\n"))

    def _read(self, lines: list[bytes]) -> None:
        if lines[0].startswith(b":usage "):
            self.usage = json.loads(lines[0].removeprefix(b":usage "))
            return
        tokens = lines.pop(0).removeprefix(b":tokens ") if lines[0].startswith(b":") else b""
        (data,) = lines
        assert data.startswith(b"data: ")
        self.events.append(data + b"\n\n")
        self.token_ids.append(tuple(map(int, tokens.split(b","))) if tokens else ())

    def beginnings(self) -> Iterator[tuple[bytes, tuple[int, ...]]]:
        """All there was to read, and its tokens, after each event."""
        for end in range(1, len(self.events) + 1):
            yield b"".join(self.events[:end]), sum(self.token_ids[:end], ())


@pytest.mark.parametrize("body", BODIES)
async def test_a_parent_learns_the_tokens_and_the_usage(edge: Edge, body: Any) -> None:
    plain = b"".join([piece async for piece in pieces_of(await (await edge.run(body))(FakeEngine()))])
    reply = await (await edge.run(body, asks=True))(FakeEngine())
    assert dict(reply.headers)[b"x-enginehouse-created"] == b"1000"
    pieces = [piece async for piece in pieces_of(reply)]
    announced = Announced(b"".join(pieces))
    assert b"".join(announced.events) == plain
    assert set(announced.usage) == {"prompt_tokens", "completion_tokens", "cached_tokens"}
    assert announced.usage["completion_tokens"] == sum(map(len, announced.token_ids))
    assert announced.events[-1] == replies.DONE
    # The last piece goes out at once: what it says because the answer ends is not for others to repeat.
    for before, token_ids in Announced(b"".join(pieces[:-1])).beginnings():
        rest = await (await edge.run(body))(FakeEngine(), ResumePoint(token_ids, 1000))
        assert before + b"".join([piece async for piece in pieces_of(rest)]) == plain


async def test_only_a_parent_is_told(edge: Edge) -> None:
    for asks, is_instance in ((False, True), (True, False)):
        reply = await (await edge.run(chat_body(), is_instance=is_instance, asks=asks))(FakeEngine())
        stream = b"".join([piece async for piece in pieces_of(reply)])
        assert b"\n:" not in stream
        assert b"x-enginehouse-created" not in dict(reply.headers)


@pytest.mark.parametrize("fields", [{"n": 2}, {"logprobs": True}])
async def test_of_others_a_parent_learns_the_usage(edge: Edge, fields: dict[str, Any]) -> None:
    reply = await (await edge.run(chat_body(**fields), asks=True))(FakeEngine())
    stream = b"".join([piece async for piece in pieces_of(reply)])
    assert not edge.resumable
    assert reply.body.resume_point() is None
    assert b"x-enginehouse-created" not in dict(reply.headers)
    assert b":tokens" not in stream
    assert b"\n\n:usage {" in stream


class PlainParser:
    def push(self, chunk: Chunk) -> Any:
        raise AssertionError("nothing is to be generated")


async def test_reasoning_is_not_resumed(edge: Edge) -> None:
    engine = FakeEngine(capabilities=("chat", "reasoning"), make_parser=PlainParser)
    run = await edge.run(chat_body())
    with pytest.raises(UnsupportedFeature, match="reasoning"):
        await run(engine, ResumePoint((), 7))
    assert engine.stats().waiting == engine.stats().running == 0


async def test_a_whole_answer_is_run_again(edge: Edge) -> None:
    run = await edge.run(chat_body(stream=False))
    with pytest.raises(EngineError):
        await run(DyingEngine(3))
    reply = await run(FakeEngine())
    (document,) = [json.loads(piece) async for piece in pieces_of(reply)]
    tokens = len(await FakeEngine().tokenize(f"user: {TEXT}\n"))
    assert document["usage"]["completion_tokens"] == tokens
    assert edge.metrics.snapshot()["completion_tokens"] == tokens
    assert reply.body.resume_point() is None


def test_the_error_event() -> None:
    event = replies.error_event(EngineError("it broke"))
    assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == "engine_error"
