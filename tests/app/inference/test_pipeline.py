"""Inferences without an HTTP request, as batch jobs and tests start them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from app.dialects.openai.dialect import CHAT, COMPLETIONS
from app.inference import pipeline
from app.inference.outcome import RequestOutcome
from app.inference.pipeline import generation_requests
from app.inference.task import Task
from app.inference.wire_request import WireRequest
from app.server import Server
from app.settings import Settings
from balancer.call import Target
from balancer.errors import BadAnswer
from engines.base import Prompt, Sampling
from engines.errors import ContextLengthExceeded
from engines.media import image
from support.bad_upstream import answer, bad_upstream, flood
from support.pictures import picture

BODY = {"model": "FAKE", "messages": [{"role": "user", "content": "one two"}], "stream": True}


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Server]:
    server = Server(Settings(_env_file=None, inference_engine="fake", **settings))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def outcomes_of(server: Server) -> list[RequestOutcome]:
    outcomes: list[RequestOutcome] = []
    server._log = SimpleNamespace(of_this_request=lambda: outcomes.append)  # type: ignore[assignment]
    return outcomes


def request(body: dict[str, Any], path: str = "/v1/chat/completions") -> WireRequest:
    return WireRequest("line-1", path, json.dumps(body).encode())


async def test_an_answer_without_http() -> None:
    async with running() as server:
        outcomes = outcomes_of(server)
        task = CHAT.parse(BODY, server.targets.resolve)
        status, document = await server.pipeline.answer(task, CHAT, request(BODY))
        answer = json.loads(document)
        assert (status, answer["object"], answer["model"]) == (200, "chat.completion", "fake")
        assert answer["choices"][0]["message"]["content"] == "user: one two\n"
        [outcome] = outcomes
        assert outcome.target == Target("fake", None, "FAKE")
        assert (outcome.status, outcome.backend, outcome.attempts) == ("finished", "instance_0", 1)
        assert (outcome.request_id, outcome.endpoint) == ("line-1", "/v1/chat/completions")
        assert outcome.usage.completion_tokens == answer["usage"]["completion_tokens"]


async def test_the_prompt_ends_as_the_request_says() -> None:
    begun = [*BODY["messages"], {"role": "assistant", "content": "three"}]  # type: ignore[misc]
    fields: dict[str, Any] = {"messages": begun, "return_token_ids": True, "skip_special_tokens": False}
    async with running() as server:
        for more, text in (({}, "three"), ({"add_generation_prompt": True}, "three\n")):
            body = {**BODY, **fields, **more}
            task = CHAT.parse(body, server.targets.resolve)
            _, document = await server.pipeline.answer(task, CHAT, request(body))
            answer = json.loads(document)
            (choice,) = answer["choices"]
            assert choice["message"]["content"] == f"user: one two\nassistant: {text}"
            assert choice["token_ids"] == answer["prompt_token_ids"]


@pytest.mark.processes
async def test_an_answer_of_a_worker_without_http() -> None:
    """The worker is told that nothing is to be streamed, although the body says so; and it meets or refuses
    the fields of other servers as this one would."""
    settings = {"inference_mode": "load_balance", "instance_kind": "process", "instance_port": 18740}
    media: Any = {"media_urls": "127.0.0.1/32"}
    async with running(cluster_instances=1, auto_scaling=False, **settings, **media) as server:
        task = CHAT.parse(BODY, server.targets.resolve)
        status, document = await server.pipeline.answer(task, CHAT, request(BODY))
        assert (status, json.loads(document)["object"]) == (200, "chat.completion")
        await _shows_what_was_fetched(server)
        for fields, param in (
            ({"mirostat": 2}, "mirostat"),
            ({"reasoning_effort": "low"}, "reasoning_effort"),
        ):
            body = {**BODY, **fields}
            task = CHAT.parse(body, server.targets.resolve)
            status, document = await server.pipeline.answer(task, CHAT, request(body))
            error = json.loads(document)["error"]
            assert (status, error["code"], error["param"]) == (400, "unsupported_feature", param)
        body = {**BODY, "return_token_ids": True, "allowed_token_ids": [66], "mirostat": 0, "max_tokens": 3}
        task = CHAT.parse(body, server.targets.resolve)
        status, document = await server.pipeline.answer(task, CHAT, request(body))
        assert json.loads(document)["choices"][0]["token_ids"] == [66]


async def _shows_what_was_fetched(server: Server) -> None:
    """A worker fetches nothing: it gets what this server fetched, and nobody else's text is changed."""
    async with bad_upstream(answer(picture())) as files:
        url = f"{files.url}/red.png"
        parts = [{"type": "text", "text": url}, {"type": "image_url", "image_url": {"url": url}}]
        body = {**BODY, "messages": [{"role": "user", "content": parts}]}
        task = CHAT.parse(body, server.targets.resolve)
        _, document = await server.pipeline.answer(task, CHAT, request(body))
        said = json.loads(document)["choices"][0]["message"]["content"]
        assert said.split() == ["user:", url, f"image_{image(picture()).key[:8]}"]
        assert len(files.requests) == 1
    assert server.media.memory.held == 0


async def test_an_endless_answer_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MOST_BYTES", 100_000)
    endless = flood(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n", b" " * 10_000)
    async with bad_upstream(endless, probed=answer(b"{}")) as upstream:
        async with running(upstreams=f"{upstream.url}#model=far") as server:
            task = CHAT.parse({**BODY, "model": "far"}, server.targets.resolve)
            with pytest.raises(BadAnswer, match="more than 100,000 bytes"):
                await server.pipeline.answer(task, CHAT, request(BODY))
            await asyncio.wait_for(upstream.lost.wait(), 5)
            assert server.balancer.running == 0


async def test_a_refusal_is_an_outcome_too() -> None:
    async with running(context_length=8) as server:
        outcomes = outcomes_of(server)
        body = {"model": "fake", "prompt": "word " * 50}
        task = COMPLETIONS.parse(body, server.targets.resolve)
        with pytest.raises(ContextLengthExceeded):
            await server.pipeline.answer(task, COMPLETIONS, request(body, "/v1/completions"))
        assert [(each.status, each.usage.prompt_tokens) for each in outcomes] == [("refused", 0)]


async def test_cancelling_aborts() -> None:
    async with running() as server:
        outcomes = outcomes_of(server)
        body = {"model": "fake", "prompt": "word", "max_tokens": 8000, "ignore_eos": True}
        task = COMPLETIONS.parse(body, server.targets.resolve)
        answering = asyncio.create_task(
            server.pipeline.answer(task, COMPLETIONS, request(body, "/v1/completions"))
        )
        while not server.balancer.running:
            await asyncio.sleep(0)
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
        assert server.balancer.running == 0
        assert [each.status for each in outcomes] == ["aborted"]


def test_every_answer_has_a_seed_of_its_own() -> None:
    prompts = [Prompt((1,)), Prompt((2,))]
    task = Task(target=Target("m", "a"), n=2, sampling=Sampling(seed=5), max_tokens=3)
    requests = generation_requests(task, prompts, WireRequest("r", "/", b""))
    assert [(each.prompt, each.sampling.seed) for each in requests] == [
        (prompts[0], 5), (prompts[0], 6), (prompts[1], 5), (prompts[1], 6),
    ]  # fmt: skip
    assert {each.adapter for each in requests} == {"a"}
