"""Bodies of workers' streams: their comments stay here, and their events go out whole or not at all."""

from __future__ import annotations

import pytest

from app.dialects.openai.wire import WIRE
from balancer.call import ResumePoint
from balancer.proxy.client import ProxyClient
from engines.base import Usage
from support.bad_upstream import (
    DOCUMENT,
    EVENTS,
    answer,
    ask,
    ask_worker,
    bad_upstream,
    events,
    read,
    read_until_failure,
    reset,
)
from support.meter import Meter

BEGIN = b':begin {"prompt_tokens": 1, "created": 1700}\n\n'
ROLE = b'data: {"role":"assistant"}\n\n'
USAGE = b':usage {"prompt_tokens": 1, "completion_tokens": 3, "cached_tokens": 1}\n\n'
DONE = b"data: [DONE]\n\n"
TOLD = [
    BEGIN + ROLE,
    b':tokens 12,13\ndata: {"content":"a"}\n\n',
    b':tokens 14\ndata: {"content":"b"}\n\n',
    b":last\n\n" + DONE + USAGE + b":end\n\n",
]
PASSED = ROLE + b'data: {"content":"a"}\n\ndata: {"content":"b"}\n\ndata: [DONE]\n\n'


async def test_comments_stay_here(relay: ProxyClient) -> None:
    async with bad_upstream(events(*TOLD)) as worker:
        meter = Meter()
        reply = await ask_worker(relay, worker, meter)
        assert await read(reply) == PASSED
        assert (meter.prompt_tokens, meter.counted, meter.usage) == (1, 3, Usage(1, 3, 1))
        assert reply.body.resume_point() == ResumePoint((12, 13, 14), 1700)
        assert worker.requests[0].headers["x-enginehouse-parent"] == "1"
        assert "x-enginehouse-resume" not in worker.requests[0].headers


async def test_events_in_any_pieces(relay: ProxyClient) -> None:
    pieces = [bytes([byte]) for byte in b"".join(TOLD)]
    async with bad_upstream(events(*pieces)) as worker:
        reply = await ask_worker(relay, worker)
        assert await read(reply) == PASSED
        assert reply.body.resume_point() == ResumePoint((12, 13, 14), 1700)


async def test_half_an_event_goes_nowhere(relay: ProxyClient) -> None:
    async with bad_upstream(events(*TOLD[:2], TOLD[2][:20], then=reset)) as worker:
        meter = Meter()
        reply = await ask_worker(relay, worker, meter)
        data, _ = await read_until_failure(reply)
        assert data == ROLE + b'data: {"content":"a"}\n\n'
        assert reply.body.resume_point() == ResumePoint((12, 13), 1700)
        assert (meter.counted, meter.usage) == (2, None)


FINISH = b':last\n\n:tokens 15\ndata: {"finish_reason":"stop"}\n\n'


@pytest.mark.parametrize("cut", [FINISH, FINISH + DONE, FINISH + DONE + USAGE, FINISH + DONE + USAGE[:9]])
async def test_the_end_of_an_answer_comes_whole_or_not_at_all(relay: ProxyClient, cut: bytes) -> None:
    """Whoever goes on with an answer writes its finish event: there must not have been one."""
    async with bad_upstream(events(*TOLD[:3], cut, then=reset)) as worker:
        reply = await ask_worker(relay, worker)
        data, _ = await read_until_failure(reply)
        assert data == PASSED.removesuffix(DONE)
        assert reply.body.resume_point() == ResumePoint((12, 13, 14), 1700)


async def test_the_end_of_an_answer_in_pieces(relay: ProxyClient) -> None:
    async with bad_upstream(events(*TOLD[:3], FINISH, DONE + USAGE, b":end\n\n")) as worker:
        reply = await ask_worker(relay, worker)
        assert (await read(reply)).endswith(b'data: {"finish_reason":"stop"}\n\ndata: [DONE]\n\n')


async def test_what_comes_after_the_end_does_not_matter(relay: ProxyClient) -> None:
    async with bad_upstream(events(*TOLD, then=reset)) as worker:
        assert await read(await ask_worker(relay, worker)) == PASSED


async def test_an_answer_that_goes_on(relay: ProxyClient) -> None:
    begun = ResumePoint((7,), 1600)
    async with bad_upstream(events(BEGIN + TOLD[1], *TOLD[2:])) as worker:
        meter = Meter()
        reply = await ask_worker(relay, worker, meter, begun)
        assert reply.body.resume_point() == begun
        await read(reply)
        assert reply.body.resume_point() == ResumePoint((7, 12, 13, 14), 1700)
        assert meter.begun == [1]
        [request] = worker.requests
        point = b'{"token_ids": [7], "created": 1600}'
        assert request.headers["x-enginehouse-resume"] == str(len(point))
        assert request.body == point + b'{"model":"m"}'


async def test_an_answer_that_cannot_be_resumed(relay: ProxyClient) -> None:
    begin = b':begin {"prompt_tokens": 4}\n\n'
    async with bad_upstream(events(begin + ROLE, then=reset)) as worker:
        reply = await ask_worker(relay, worker)
        assert reply.body.resume_point() is None
        await read_until_failure(reply)
        assert reply.body.resume_point() is None


async def test_an_error_is_a_failure_after_what_came_before(relay: ProxyClient) -> None:
    error = b':error "out of memory"\n\n'
    async with bad_upstream(events(b"".join(TOLD[:2]) + error)) as worker:
        reply = await ask_worker(relay, worker)
        data, message = await read_until_failure(reply)
        assert data == ROLE + b'data: {"content":"a"}\n\n'
        assert message == "out of memory"
        assert reply.body.resume_point() == ResumePoint((12, 13), 1700)


async def test_events_that_belong_together_come_together(relay: ProxyClient) -> None:
    group = b":together 2\n:tokens 14\ndata: 1\n\n", b"data: 2\n\n"
    async with bad_upstream(events(BEGIN + ROLE, group[0], then=reset)) as worker:
        reply = await ask_worker(relay, worker)
        data, _ = await read_until_failure(reply)
        assert data == ROLE
        assert reply.body.resume_point() == ResumePoint((), 1700)
    async with bad_upstream(events(BEGIN + ROLE, *group, then=reset)) as worker:
        reply = await ask_worker(relay, worker)
        data, _ = await read_until_failure(reply)
        assert data == ROLE + b"data: 1\n\ndata: 2\n\n"
        assert reply.body.resume_point() == ResumePoint((14,), 1700)


@pytest.mark.parametrize(
    "event",
    [
        b":together x\ndata: 1\n\n",
        b":tokens x\ndata: 1\n\n",
        b":usage {\n\n",
        b':usage {"prompt_tokens": 1}\n\n',
        b":begin []\n\n",
        b":tokens 99999999999999999999\n\n",
    ],
)
async def test_what_makes_no_sense(relay: ProxyClient, event: bytes) -> None:
    async with bad_upstream(events(BEGIN + ROLE, event)) as worker:
        reply = await ask_worker(relay, worker)
        data, message = await read_until_failure(reply)
        assert data == ROLE
        assert "no sense" in message


@pytest.mark.parametrize("start", [ROLE, b":last\n\n"])
async def test_an_endless_event(relay: ProxyClient, start: bytes) -> None:
    async with bad_upstream(events(start, *[b"x" * 100_000] * 100)) as worker:
        _, message = await read_until_failure(await ask_worker(relay, worker))
        assert "an event has more than" in message


async def test_documents(relay: ProxyClient) -> None:
    async with bad_upstream(answer()) as worker:
        meter = Meter()
        assert await read(await ask_worker(relay, worker, meter)) == DOCUMENT
        assert meter.usage == Usage(5, 2, 3)


async def test_an_upstreams_events_are_counted_while_they_pass(relay: ProxyClient) -> None:
    async with bad_upstream(events(*EVENTS[:-1], then=reset)) as upstream:
        meter = Meter()
        reply = await ask(relay, upstream, meter)
        await read_until_failure(reply)
        assert meter.counted == sum(WIRE.count_tokens(event) for event in EVENTS[:-1]) > 0
