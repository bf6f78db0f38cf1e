"""Many clients at once against the real model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx

from support.events import EventReader, events_async
from support.server import LiveServer, wait_until

END_TOKENS = ("<|im_end|>", "<|endoftext|>")
# Natural-log probabilities that a different batch can turn around.
NEAR_TIE = 0.5


@dataclass
class Streamed:
    text: str
    reason: str
    usage: dict[str, int]
    done: bool
    tokens: list[dict[str, Any]]


async def stream(client: httpx.AsyncClient, body: dict[str, object]) -> Streamed:
    text, reason, usage, tokens = "", "", {}, []
    async with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
        assert response.status_code == 200, await response.aread()
        reader = EventReader()
        async for event in events_async(response, reader):
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
                reason = choice["finish_reason"] or reason
                tokens += (choice["logprobs"] or {"content": []})["content"]
    return Streamed(text, reason, usage, reader.is_done, tokens)


def bodies(model: str) -> list[dict[str, object]]:
    """32 conversations of different length, limit and stop strings."""
    return [
        {
            "model": model,
            "messages": [
                {
                    "role": "user",
                    "content": f"List {i + 3} facts about the number {i}. " + "Please. " * (i % 7) * 5,
                }
            ],
            "max_tokens": 8 + 2 * i,
            "temperature": 0,
            "stop": [[], ["."], [" the", "\n"], ["number 1"]][i % 4],
            "stream_options": {"include_usage": True},
            "logprobs": True,
            "top_logprobs": 5,
        }
        for i in range(32)
    ]


def assert_same_but_for_near_ties(one: Streamed, other: Streamed) -> None:
    """Greedy answers may part only where two tokens were nearly as likely: batched arithmetic rounds
    differently."""
    for a, b in zip(one.tokens, other.tokens, strict=False):
        if a["token"] != b["token"]:
            likely = {top["token"]: top["logprob"] for top in a["top_logprobs"]}
            assert b["token"] in likely, f"{b['token']!r} was no candidate for {a['token']!r}"
            assert a["logprob"] - likely[b["token"]] < NEAR_TIE
            return
    shorter, longer = sorted((one, other), key=lambda each: len(each.tokens))
    if len(shorter.tokens) < len(longer.tokens):  # the token that ends an answer is not in the list
        assert shorter.reason == "stop"
        instead = longer.tokens[len(shorter.tokens)]
        ends = [top["logprob"] for top in instead["top_logprobs"] if top["token"] in END_TOKENS]
        assert ends, f"the end was no candidate for {instead['token']!r}"
        assert instead["logprob"] - max(ends) < NEAR_TIE
        return
    assert one.text == other.text


async def test_32_streams_each_get_their_own_answer(server: LiveServer, model: str) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        requests = bodies(model)
        together = await asyncio.gather(*(stream(client, body) for body in requests))
        alone = [await stream(client, body) for body in requests[::4]]
    for body, result in zip(requests, together, strict=True):
        assert result.done
        assert result.reason in ("stop", "length")
        usage = result.usage
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        limit = body["max_tokens"]
        assert isinstance(limit, int)
        assert usage["completion_tokens"] <= limit
        assert (usage["completion_tokens"] == limit) or result.reason == "stop"
        for stop in body["stop"]:  # type: ignore[attr-defined]
            assert stop not in result.text
    for one, other in zip(alone, together[::4], strict=True):
        assert_same_but_for_near_ties(one, other)
        assert one.usage["prompt_tokens"] == other.usage["prompt_tokens"]
    assert len({result.text[:40] for result in together if result.text}) > 16
    assert server.house.balancer.running == 0


async def test_disconnects_free_sequences_and_cells(server: LiveServer, model: str) -> None:
    engine = server.engine()
    assert engine is not None
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Count to a thousand."}],
        "max_tokens": 1500,
        "ignore_eos": True,
        "stream": True,
    }
    took: list[float] = []
    for _ in range(3):
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                lines = response.aiter_lines()  # kept: with it the connection would be closed
                await anext(lines)
                await asyncio.to_thread(wait_until, lambda: engine.stats().running == 1)
        took.append(await asyncio.to_thread(wait_until, lambda: engine.stats().running == 0))
    assert min(took) < 0.1  # the best of three: a busy machine may hold up the others
    assert engine.stats().kv_used == 0
    assert server.house.balancer.running == 0


async def test_a_slow_reader_does_not_hold_up_others(server: LiveServer, model: str) -> None:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 400,
        "ignore_eos": True,
    }
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        async with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as slow:
            lines = slow.aiter_lines()
            await anext(lines)
            quick = await stream(client, {**body, "max_tokens": 10})
            assert quick.done


async def test_an_engine_thread_that_dies_is_replaced(server: LiveServer, model: str) -> None:
    """The bug is planted where no containment reaches: in the scheduler. The client does not notice."""
    broken = server.engine()
    assert broken is not None

    def plant() -> None:
        def explode(budget: int) -> None:
            raise MemoryError("planted")

        broken._thread._stepper._scheduler.schedule = explode  # type: ignore[attr-defined]

    server.call(plant)
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    assert server.engine() not in (None, broken)
    assert server.house.manager.status(model).restarts == 1
