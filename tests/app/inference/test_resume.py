"""Answers that break off anywhere and go on with another engine: the client sees one stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from app.dialects.anthropic.dialect import MESSAGES
from app.dialects.openai.chat import write as chat_writer
from app.dialects.openai.completions import write as completion_writer
from app.dialects.openai.dialect import CHAT, COMPLETIONS
from app.dialects.openai.responses import write as response_writer
from app.dialects.openai.responses.dialect import RESPONSES
from app.dialects.openai.wire import DONE
from app.inference import pipeline
from app.inference import reply as reply_module
from app.inference.dialect import Execution, GeneratingDialect
from app.inference.outcome import RequestRecord
from app.inference.resume import is_resumable
from app.inference.targets import Resolved
from app.inference.wire_request import WireRequest
from app.telemetry.metrics import Metrics
from balancer.call import Reply, ResumePoint, Target
from engines.base import Chunk, GenerationRequest, Prompt, TokenStream
from engines.errors import ContextLengthExceeded, EngineError, UnsupportedFeature
from engines.fake import FakeEngine
from support.clock import Clock
from support.marks import MarkReader

Asked = tuple[GeneratingDialect, dict[str, Any]]

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

    def __init__(self, chunks: int, **options: Any) -> None:
        super().__init__(**options)
        self._chunks = chunks

    def generate(self, request: GenerationRequest) -> Any:
        return CutStream(super().generate(request), self._chunks)


class Edge:
    """The pipeline with what is around it left out: documents in, bytes out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock(1000.0)
        self.metrics = Metrics(list, lambda: 0)
        for module in (chat_writer, completion_writer, response_writer):
            monkeypatch.setattr(module, "now", lambda: int(self.clock.now))
        monkeypatch.setattr(reply_module, "EVENT_DISTANCE", 0.0)

    def run(self, asked: Asked, *, for_parent: bool = False) -> Callable[..., Awaitable[Reply]]:
        """What serves ``asked``, given an engine and a resume point."""
        dialect, document = asked
        task = dialect.parse(document, resolve)
        live, sinks = self.metrics.for_model("m"), (self.metrics,)
        self.record = RequestRecord(task.target, "/x", "r", live=live, sinks=sinks, clock=self.clock)
        request = WireRequest("r", "/x", b"", for_parent=for_parent)

        async def run(engine: FakeEngine, resume_point: ResumePoint | None = None) -> Reply:
            return await dialect.run(task, Execution(request, self.record, engine, resume_point))

        return run

    async def stream(self, asked: Asked, *engines: FakeEngine) -> bytes:
        """The bytes of an answer that goes to the next engine wherever one dies."""
        run = self.run(asked)
        sent = b""
        resume_point = None
        for engine in engines:
            self.clock.now += 100
            reply: Reply | None = None
            try:
                reply = await run(engine, resume_point)
                async for piece in reply.body:
                    sent += piece
                self.record.end("finished")
                return sent
            except EngineError:
                if reply is not None:
                    resume_point = reply.body.resume_point()
                    assert resume_point is not None
            finally:
                await engine.close()
        raise AssertionError("every engine died")


def resolve(name: str) -> Resolved:
    return Resolved(Target("m", None, name))


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Edge:
    return Edge(monkeypatch)


def chat_body(**fields: Any) -> Asked:
    messages = [{"role": "user", "content": TEXT}]
    return CHAT, {"model": "m", "messages": messages, "stream": True, "max_tokens": 40, **fields}


def completion_body(**fields: Any) -> Asked:
    return COMPLETIONS, {"model": "m", "prompt": TEXT, "stream": True, "max_tokens": 40, **fields}


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
async def test_a_cut_anywhere_shows_nowhere(edge: Edge, body: Asked) -> None:
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


PARTS = {
    "answer": '~Hm, well.^Let me see. @f${"input": "a\\u00e9 b"}@g${"x": [1, 2]}',
    "make_reader": MarkReader,
    "capabilities": ("chat", "tools", "reasoning"),
}


def response_events(stream: bytes) -> list[dict[str, Any]]:
    """The events of a stream of a response, whose numbers must grow, without them and the times."""
    *parts, done = [part for part in stream.decode().split("\n\n") if part]
    assert done == "data: [DONE]"
    found = [json.loads(part.partition("data: ")[2]) for part in parts]
    numbers = [event.pop("sequence_number") for event in found]
    assert numbers == sorted(set(numbers))
    for event in found:
        for field in ("created_at", "completed_at"):
            event.get("response", {}).pop(field, None)
    return found


async def test_a_cut_shows_nowhere_in_the_items_of_a_response(edge: Edge) -> None:
    tools = [{"type": "custom", "name": "f"}, {"type": "function", "name": "g"}]
    asked: Asked = (RESPONSES, {"model": "m", "input": TEXT, "stream": True, "tools": tools})
    whole = response_events(await edge.stream(asked, FakeEngine(**PARTS)))
    assert [item["type"] for item in whole[-1]["response"]["output"]] == [
        *["reasoning", "message", "custom_tool_call", "function_call"]
    ]
    chunks = 0
    while True:
        chunks += 1
        second = FakeEngine(**PARTS)
        stream = await edge.stream(asked, DyingEngine(chunks, **PARTS), second)
        if second.last_request is None:
            break
        assert response_events(stream) == whole
    assert chunks > 20


TURNS = PARTS | {"answer": '~Hm.^One.~Oh.^Two. @f${"x": 1}@g${}'}


def message_body(display: str) -> Asked:
    tools = [{"name": name, "input_schema": {"type": "object"}} for name in "fg"]
    thinking = {"type": "adaptive", "display": display}
    messages = [{"role": "user", "content": TEXT}]
    asked = {"model": "m", "messages": messages, "tools": tools, "thinking": thinking}
    return MESSAGES, {**asked, "stream": True, "max_tokens": 400}


@pytest.mark.parametrize("display", ["summarized", "omitted"])
async def test_a_cut_shows_nowhere_in_the_blocks_of_a_message(edge: Edge, display: str) -> None:
    asked = message_body(display)
    whole = await edge.stream(asked, FakeEngine(**TURNS))
    assert whole.count(b"event: content_block_start") == 6
    assert whole.endswith(b'data: {"type":"message_stop"}\n\n')
    chunks = 0
    while True:
        chunks += 1
        second = FakeEngine(**TURNS)
        if await edge.stream(asked, DyingEngine(chunks, **TURNS), second) != whole:
            raise AssertionError(chunks)
        if second.last_request is None:
            break
    assert chunks > 20


async def test_a_parent_goes_on_after_whatever_of_a_message_it_read(edge: Edge) -> None:
    asked = message_body("summarized")
    reply = await edge.run(asked, for_parent=True)(FakeEngine(**TURNS))
    pieces = [piece async for piece in pieces_of(reply)]
    plain = b"".join([piece async for piece in pieces_of(await edge.run(asked)(FakeEngine(**TURNS)))])
    assert b"".join(Commented(b"".join(pieces)).events) == plain
    for before, token_ids in Commented(b"".join(pieces[:-1])).beginnings():
        rest = await edge.run(asked)(FakeEngine(**TURNS), ResumePoint(token_ids, 1000))
        assert before + b"".join([piece async for piece in pieces_of(rest)]) == plain


@pytest.mark.parametrize("body", BODIES)
async def test_many_cuts_of_one_answer(edge: Edge, body: Asked) -> None:
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

    monkeypatch.setattr(reply_module, "EVENT_DISTANCE", 0.002)
    body = completion_body(prompt=[1 + byte for byte in b"0123456789" * 10], max_tokens=100)
    stream = await edge.stream(body, DyingEngine(1), DyingEngine(1), DyingEngine(2), FakeEngine())
    assert text(stream) == "0123456789" * 10


async def test_what_was_not_handed_out_is_generated_anew(edge: Edge) -> None:
    begun = ResumePoint(tuple(1 + byte for byte in b"user"), 7)
    run = edge.run(chat_body())
    fresh, resumed = await run(FakeEngine()), await run(FakeEngine(), begun)
    assert (fresh.body.resume_point(), resumed.body.resume_point()) == (None, begun)
    await anext(resumed.body)
    resume_point = resumed.body.resume_point()
    assert resume_point is not None
    assert (len(resume_point.token_ids), resume_point.created) == (5, 7)
    for reply in (fresh, resumed):
        reply.body.close()


async def test_an_answer_may_go_on_again_and_again(edge: Edge) -> None:
    body = chat_body(**USAGE)
    pieces = [piece async for piece in pieces_of(await edge.run(body)(FakeEngine()))]
    run = edge.run(body)
    reply = await run(FakeEngine())
    for _ in range(4):
        await anext(reply.body)
    begun = reply.body.resume_point()
    reply.body.close()
    assert begun is not None
    edge.clock.now += 50
    assert [piece async for piece in pieces_of(await run(FakeEngine(), begun))] == pieces[4:]
    reply = await run(FakeEngine(), begun)
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
    run = edge.run(chat_body())
    edge.clock.now += 5
    reply = await run(FakeEngine(), ResumePoint(tuple(1 + byte for byte in b"us"), 7))
    assert [piece async for piece in pieces_of(reply)]
    snapshot = edge.metrics.snapshot()
    assert snapshot["time_to_first_token"]["count"] == 0
    assert snapshot["inter_token_latency"]["mean"] == 0


class Commented:
    """A worker's stream as its parent reads it: events without comments, and what the comments say."""

    def __init__(self, stream: bytes) -> None:
        self.events: list[bytes] = []  # those that belong together as one
        self._together = 0
        self._is_within = False
        self.token_ids: list[tuple[int, ...]] = []  # for each event
        self.told: dict[bytes, Any] = {}
        for event in stream.split(b"\n\n")[:-1]:
            self._read(event.split(b"\n"))

    def _read(self, lines: list[bytes]) -> None:
        tokens = b""
        while lines and lines[0].startswith(b":"):
            name, _, value = lines.pop(0).partition(b" ")
            if name == b":tokens":
                tokens = value
            elif name == b":together":
                self._together = int(value)
            else:
                self.told[name] = json.loads(value) if value else True
        if not lines:
            return
        assert lines[-1].startswith(b"data: ")
        event = b"\n".join(lines) + b"\n\n"
        if self._together and not tokens and self._is_within:
            self.events[-1] += event
        else:
            self.events.append(event)
            self.token_ids.append(tuple(map(int, tokens.split(b","))) if tokens else ())
        self._together = max(0, self._together - 1)
        self._is_within = self._together > 0

    def beginnings(self) -> Iterator[tuple[bytes, tuple[int, ...]]]:
        """All there was to read, and its tokens, after each event."""
        for end in range(1, len(self.events) + 1):
            yield b"".join(self.events[:end]), sum(self.token_ids[:end], ())


@pytest.mark.parametrize("body", BODIES)
async def test_a_parent_learns_the_tokens_and_the_usage(edge: Edge, body: Asked) -> None:
    plain = b"".join([piece async for piece in pieces_of(await edge.run(body)(FakeEngine()))])
    reply = await edge.run(body, for_parent=True)(FakeEngine())
    pieces = [piece async for piece in pieces_of(reply)]
    commented = Commented(b"".join(pieces))
    assert b"".join(commented.events) == plain
    usage = commented.told[b":usage"]
    assert commented.told[b":begin"] == {"prompt_tokens": usage["prompt_tokens"], "created": 1000}
    assert set(usage) == {"prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens"}
    assert usage["completion_tokens"] == sum(map(len, commented.token_ids))
    assert (commented.told[b":last"], commented.told[b":end"]) == (True, True)
    assert commented.events[-1] == DONE
    # The last piece goes out at once: what it says because the answer ends is not for others to repeat.
    for before, token_ids in Commented(b"".join(pieces[:-1])).beginnings():
        rest = await edge.run(body)(FakeEngine(), ResumePoint(token_ids, 1000))
        assert before + b"".join([piece async for piece in pieces_of(rest)]) == plain


async def test_only_a_parent_is_told(edge: Edge) -> None:
    reply = await edge.run(chat_body())(FakeEngine())
    stream = b"".join([piece async for piece in pieces_of(reply)])
    assert b"\n:" not in stream
    assert not stream.startswith(b":")


@pytest.mark.parametrize("fields", [{"n": 2}, {"logprobs": True}])
async def test_of_others_a_parent_learns_the_usage(edge: Edge, fields: dict[str, Any]) -> None:
    reply = await edge.run(chat_body(**fields), for_parent=True)(FakeEngine())
    commented = Commented(b"".join([piece async for piece in pieces_of(reply)]))
    assert reply.body.resume_point() is None
    assert "created" not in commented.told[b":begin"]
    assert commented.told[b":usage"]["completion_tokens"] == sum(map(len, commented.token_ids))


async def test_what_an_engine_cannot_resume_is_refused(edge: Edge) -> None:
    engine = FakeEngine(capabilities=("chat", "structured"))
    run = edge.run(chat_body(response_format={"type": "json_object"}))
    with pytest.raises(UnsupportedFeature, match="resumed"):
        await run(engine, ResumePoint((), 7))
    assert engine.stats().waiting == engine.stats().running == 0


async def test_a_whole_answer_is_run_again(edge: Edge) -> None:
    run = edge.run(chat_body(stream=False))
    with pytest.raises(EngineError):
        await run(DyingEngine(3))
    reply = await run(FakeEngine())
    (document,) = [json.loads(piece) async for piece in pieces_of(reply)]
    tokens = len(await FakeEngine().tokenize(f"user: {TEXT}\n"))
    assert document["usage"]["completion_tokens"] == tokens
    edge.record.end("finished")
    assert edge.metrics.snapshot()["completion_tokens"] == tokens
    assert reply.body.resume_point() is None


def test_the_error_event() -> None:
    event = CHAT.error_event(EngineError("it broke"), b"")
    assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == "engine_error"


@pytest.mark.parametrize(
    ("sent", "kind", "number"),
    [
        (b"", "error", 0),
        (b'data: {"sequence_number":7, "x"', "error", 8),
        (b'event: x\ndata: {"type":"response.created","sequence_number":0,"response":5}\n\n', "error", 1),
        (
            b'data: {"type":"response.created","sequence_number":0,"response":{"id":"r"}}\n\n'
            b'data: {"type":"response.output_text.delta","delta":"a","sequence_number":12}\n\n',
            "response.failed",
            13,
        ),
    ],
)
def test_the_error_event_of_a_response(sent: bytes, kind: str, number: int) -> None:
    failure = ContextLengthExceeded(10, 20)
    event = RESPONSES.error_event(failure, sent)
    head, data = event.decode().rstrip().split("\n")
    told = json.loads(data.removeprefix("data: "))
    assert (head, told["type"], told["sequence_number"]) == (f"event: {kind}", kind, number)
    if kind == "error":
        assert (told["code"], told["message"]) == ("context_length_exceeded", str(failure))
    else:
        error = {"code": "context_length_exceeded", "message": str(failure)}
        assert told["response"] == {"id": "r", "status": "failed", "error": error}


TOOLS = [{"type": "function", "function": {"name": "f"}}]


@pytest.mark.parametrize(
    "asked",
    [
        chat_body(),
        chat_body(tools=TOOLS, tool_choice="none", response_format={"type": "text"}),
        chat_body(stop="x", seed=1, **USAGE),
        completion_body(prompt=[1, 2], echo=True),
        completion_body(prompt=["hi"]),
        chat_body(tools=TOOLS),
        chat_body(response_format={"type": "json_object"}),
    ],
)
def test_plain_streams_can_be_resumed(asked: Asked) -> None:
    assert is_resumable(asked[0].parse(asked[1], resolve))


@pytest.mark.parametrize(
    "asked",
    [
        chat_body(stream=False),
        chat_body(n=2),
        chat_body(logprobs=True),
        completion_body(logprobs=0),
        completion_body(prompt=["a", "b"]),
        completion_body(prompt=[[1], [2]]),
    ],
)
def test_others_cannot(asked: Asked) -> None:
    assert not is_resumable(asked[0].parse(asked[1], resolve))


@pytest.mark.parametrize("make", [chat_body, completion_body])
def test_no_client_can_give_a_resume_point(make: Callable[..., Asked]) -> None:
    dialect, document = make(continuation={"token_ids": [3, 4], "created": 7})
    task = dialect.parse(document, resolve)
    assert [field.name for field in task.unknown] == ["continuation"]
    [request] = pipeline.generation_requests(task, [Prompt((1,))], WireRequest("r", "/", b""))
    assert request.generated == ()
