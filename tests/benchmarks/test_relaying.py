"""Relaying: what the upstream says, when an answer counts as whole, and how two peers share a table."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cases import held_streams, relaying
from benchmarks.cases.mock_upstream import MODEL, Answers, ChunkPace, MockExchange
from benchmarks.harness import environments
from benchmarks.harness.measure import attempt
from benchmarks.harness.processes import BenchError, BenchServer, NotInstalled
from benchmarks.harness.report import SUBJECT, Measurement, lines, times
from benchmarks.harness.servers import Bench
from benchmarks.load.client import RequestFailed, connect
from benchmarks.load.sdk_chats import SdkChat, chat, check, drive

STREAMED = SdkChat(MODEL, 3)


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    answers = Answers(ChunkPace(3))
    server = await loop.create_server(lambda: MockExchange(answers), "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def whole(pieces: Sequence[bytes]) -> bytes:
    """The body that comes in ``pieces`` of chunked HTTP."""
    _, _, rest = b"".join(pieces).partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


def events(body: bytes) -> list[Any]:
    frames = body.removesuffix(b"data: [DONE]\n\n").split(b"\n\n")[:-1]
    return [json.loads(frame.removeprefix(b"data: ")) for frame in frames]


def test_a_stream_has_as_many_chunks_as_its_pace_and_usage_if_asked_for() -> None:
    answers = Answers(ChunkPace(5))
    plain = whole(answers.streamed({"stream": True}))
    texts = [each["choices"][0]["delta"].get("content") for each in events(plain)]
    assert texts == ["", " The", " sea", " was", " calm", " and", None]
    counted = whole(answers.streamed({"stream_options": {"include_usage": True}}))
    assert events(counted)[-1]["usage"]["completion_tokens"] == 5
    assert plain.endswith(b"data: [DONE]\n\n")
    assert counted.count(b"data: ") == plain.count(b"data: ") + 1


async def test_requests_of_both_kinds_are_answered_over_one_connection(upstream: str) -> None:
    connection = await connect(upstream)
    for question in (SdkChat(MODEL), STREAMED, SdkChat(MODEL)):
        await chat(connection, question.request(upstream), question)
    connection.close()


async def test_a_load_ends_after_its_requests_or_its_time(upstream: str) -> None:
    assert (await drive(upstream, STREAMED, 4, 50, 60.0)).answers == 50
    assert (await drive(upstream, STREAMED, 4, 50, -1.0)).answers == 0


async def test_a_failed_answer_is_counted_with_its_reason(upstream: str) -> None:
    tally = await drive(upstream, SdkChat(MODEL, frames=99), 2, 10, 60.0)
    assert (tally.answers, tally.errors) == (0, 2)
    assert tally.reason.endswith("events came instead of 99")
    with pytest.raises(BenchError, match=r"2 of 2 requests failed: .* instead of 99"):
        await relaying._drive(BenchServer("s", upstream, 0), relaying.ProxyLoad(2, ChunkPace(99)), 10, 60.0)


@pytest.mark.parametrize(
    ("body", "question", "reason"),
    [
        (b'{"error":{"message":"no"}}', SdkChat(MODEL), "no answer"),
        (b'data: {"content":"a"}\n\n', SdkChat(MODEL, 1), "without \\[DONE\\]"),
        (b"data: {}\n\ndata: [DONE]\n\n", SdkChat(MODEL, 3), "2 events came instead of 3"),
    ],
)
def test_half_an_answer_is_none(body: bytes, question: SdkChat, reason: str) -> None:
    with pytest.raises(RequestFailed, match=reason):
        check(body, question)


def test_a_request_is_what_the_sdk_sends() -> None:
    head, _, body = SdkChat(MODEL).request("http://127.0.0.1:8000").partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert "stream" not in json.loads(body)
    assert "stream_options" not in json.loads(body)
    streamed = json.loads(STREAMED.request("http://x:1").partition(b"\r\n\r\n")[2])
    assert streamed["stream"] is True
    assert streamed["stream_options"] == {"include_usage": True}


async def test_held_streams_are_measured_while_they_are_open(
    upstream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two readings while open: the larger one counts.
    readings = iter([1_000_000, 1_400_000, 1_200_000])
    monkeypatch.setattr("benchmarks.harness.memory.unique", lambda pid: next(readings))
    values = await held_streams.measure(BenchServer("s", upstream, 0), 10, ChunkPace(3, 0.01))
    assert values["kb_per_stream"] == 40


async def test_a_held_stream_that_fails_is_no_result(upstream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.harness.memory.unique", lambda pid: 0)
    with pytest.raises(BenchError, match="10 of 10 streams failed"):
        await held_streams.measure(BenchServer("s", upstream, 0), 10, ChunkPace(50, 0.01))


def test_each_line_is_compared_with_its_own_peer() -> None:
    metrics = [*relaying.beside("vllm-router"), *relaying.beside("litellm")]
    runs = [
        Measurement("relaying", SUBJECT, {"json_1_ms": 0.5}),
        Measurement("relaying", "vllm-router", {"json_1_ms": 0.1}),
        Measurement("relaying", "litellm", {"json_1_ms": 20.0}),
    ]
    found = [line for line in lines("relaying", metrics, runs) if line.metric.key == "json_1_ms"]
    assert [(line.peer_name, line.verdict) for line in found] == [
        ("vllm-router", "missed"),
        ("litellm", "met"),
    ]
    alone = lines("relaying", metrics, runs[:1])
    assert [line.verdict for line in alone if line.ours is not None] == ["no peer", "no peer"]


def test_every_line_of_relaying_has_a_target(tmp_path: Path) -> None:
    relayed, held = relaying.cases(Bench(out=tmp_path))
    assert list(relayed.runs) == [SUBJECT, "vllm-router", "litellm"]
    assert all(metric.target for metric in relayed.metrics)
    assert held.metrics[0].target is not None


def test_small_ratios_keep_their_digits() -> None:
    assert (times(4.0), times(0.1), times(1 / 30)) == ("4.00x", "0.10x", "0.033x")


def test_a_peer_that_cannot_be_installed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []

    def no_network(command: list[str], **_: object) -> None:
        calls.append(command)
        raise subprocess.CalledProcessError(1, command, stderr="no\nmatching distribution")

    monkeypatch.setattr("benchmarks.harness.environments.subprocess.run", no_network)
    bench = Bench(out=tmp_path, environments=tmp_path)
    for _ in range(2):
        with pytest.raises(NotInstalled, match="litellm\\[proxy\\] cannot be installed: no matching"):
            environments.program(bench, "litellm")
    assert len(calls) == 1

    case = relaying.cases(bench)[0]
    nowhere = BenchServer("upstream", "http://127.0.0.1:9", 0)
    monkeypatch.setattr("benchmarks.cases.mock_upstream.upstream", lambda bench: nullcontext(nowhere))
    assert attempt(case, "litellm", case.runs["litellm"]) is None
    assert "litellm: left out: " in capsys.readouterr().err
