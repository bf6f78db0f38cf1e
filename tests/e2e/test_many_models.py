"""Several real models behind one server: switching, eviction, loads that many ask for."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engines.lifecycle.states import ModelState
from support.models import bundled, smollm2, smollm2_q8
from support.server import LiveServer, live_server, wait_until

CHAT = "/v1/chat/completions"
SMALL = {"context_length": 512, "kv_cache_tokens": 2048, "max_sequences": 8, "max_cpu_threads": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models that answer differently: one network in three quantisations."""
    folder = tmp_path_factory.mktemp("models")
    for name, source in (("alpha", smollm2()), ("beta", smollm2_q8()), ("gamma", bundled())):
        place(source, folder / f"{name}.gguf")
    return folder


def place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy(source, target)


@pytest.fixture
def single(base: Path) -> Iterator[LiveServer]:
    with live_server(model_base_path=base, default_model="alpha", **SMALL) as server:
        yield server


def body(model: str, text: str, **fields: object) -> dict[str, object]:
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 12, **fields}


async def ask(client: httpx.AsyncClient, model: str, text: str, **fields: object) -> str:
    response = await client.post(CHAT, json=body(model, text, **fields))
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["model"] == model
    return str(answer["choices"][0]["message"]["content"])


def client_of(server: LiveServer) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits)


QUESTIONS = [f"Write a sentence about the number {i}." for i in range(20)]


async def test_twenty_clients_alternate_between_two_models(single: LiveServer) -> None:
    """In mode `single` every request is answered by the model it names, and switches are shared."""
    async with client_of(single) as client:
        alone = {(m, QUESTIONS[0]): await ask(client, m, QUESTIONS[0]) for m in ("alpha", "beta")}
        assert len(set(alone.values())) == 2, "the models must differ, or the test shows nothing"
        before = single.house.manager.counts["evictions"]
        served: Counter[str] = Counter()

        async def alternate(number: int) -> None:
            for turn in range(4):
                model = ("alpha", "beta")[(number + turn) % 2]
                answer = await ask(client, model, QUESTIONS[0])
                assert answer[:12] == alone[model, QUESTIONS[0]][:12]
                served[model] += 1

        await asyncio.gather(*(alternate(number) for number in range(20)))
    switches = single.house.manager.counts["evictions"] - before
    print(f"80 requests, {switches} switches")
    assert served == {"alpha": 40, "beta": 40}
    assert switches <= 12  # one for each round of all clients, give or take those who lag behind
    assert single.house.balancer.running == single.house.balancer.queue_depth == 0


async def test_a_steady_stream_for_one_model_does_not_starve_another(single: LiveServer) -> None:
    async with client_of(single) as client:
        stop = asyncio.Event()

        async def keep_busy() -> None:
            while not stop.is_set():
                await ask(client, "alpha", "Go on.", max_tokens=20)

        busy = [asyncio.create_task(keep_busy()) for _ in range(3)]
        await ask(client, "alpha", "First.")
        async with asyncio.timeout(30):
            for _ in range(3):
                await ask(client, "beta", "And me?")
        stop.set()
        await asyncio.gather(*busy)


async def test_two_hundred_ask_for_an_unloaded_model_at_once(base: Path) -> None:
    """One load; those who leave while it loads leave nothing behind, the rest are served."""
    settings = {"max_queued_requests": 400, "max_concurrent_requests": 128}
    with live_server(model_base_path=base, default_model="alpha", **SMALL | settings) as server:
        manager = server.house.manager
        async with client_of(server) as client:
            asked = [
                asyncio.create_task(client.post(CHAT, json=body("beta", "Hello", max_tokens=2)))
                for _ in range(200)
            ]
            await asyncio.to_thread(
                wait_until, lambda: manager.status("beta").state is ModelState.LOADING, 20
            )
            for task in asked[::2]:
                task.cancel()
            answers = await asyncio.gather(*asked[1::2])
            assert {answer.status_code for answer in answers} == {200}
            assert manager.status("beta").loads == 1
            await asyncio.to_thread(wait_until, lambda: server.house.balancer.running == 0)
        assert server.house.balancer.queue_depth == 0
        assert manager.status("beta").inflight == 0


async def test_only_idle_models_are_evicted(base: Path) -> None:
    """Room for two of three: with both in use the third waits, then gets 503 with Retry-After."""
    settings = {
        "inference_mode": "multi_instance",
        "max_concurrent_models": 2,
        "queue_timeout": 0.5,
        "context_length": 2048,
        "kv_cache_tokens": 4096,
    }
    with live_server(model_base_path=base, default_model="alpha", **SMALL | settings) as server:
        manager = server.house.manager
        async with client_of(server) as client:
            long = body("alpha", "Count.", max_tokens=1900, ignore_eos=True, stream=True)
            async with client.stream("POST", CHAT, json=long) as first:
                pieces = [first.aiter_bytes()]  # dropping an iterator would close its stream
                await anext(pieces[0])
                async with client.stream("POST", CHAT, json={**long, "model": "beta"}) as second:
                    pieces.append(second.aiter_bytes())
                    await anext(pieces[1])
                    refused = await client.post(CHAT, json=body("gamma", "Hi"))
                    assert refused.status_code == 503
                    assert refused.json()["error"]["code"] == "insufficient_memory"
                    assert int(refused.headers["retry-after"]) >= 1
                    assert manager.status("alpha").state is manager.status("beta").state is ModelState.READY
                # beta is idle now, alpha still busy
                await asyncio.to_thread(wait_until, lambda: manager.status("beta").inflight == 0)
                await ask(client, "gamma", "Hi")
                assert manager.status("beta").state is ModelState.SLEEPING  # it keeps its weights
                assert manager.status("alpha").state is ModelState.READY
                assert manager.status("alpha").loads == 1


async def test_a_request_during_loading_is_told_how_far_it_is(base: Path) -> None:
    settings = {"inference_mode": "multi_instance", "max_concurrent_models": 2, "load_timeout": 0}
    with live_server(model_base_path=base, default_model="alpha", **SMALL | settings) as server:
        async with client_of(server) as client:
            refused = await client.post(CHAT, json=body("beta", "Hi"))
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_loading")
            loading = refused.json()["error"]["loading"]
            assert loading["state"] == "loading"
            assert 0 <= loading["progress"] <= 1
            assert int(refused.headers["retry-after"]) >= 1
            ready = {"model_name": "beta"}
            assert (await client.post("/v1/models/load", json=ready)).json()["state"] == "ready"
            await ask(client, "beta", "Hi")


async def test_a_cut_off_file_is_told_clearly_and_works_once_whole(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.library_watch.RELOAD_SECONDS", 0.1)
    broken, whole = base / "broken.gguf", (base / "alpha.gguf").read_bytes()
    broken.write_bytes(whole[: 20 * 2**20])
    try:
        with live_server(model_base_path=base, default_model="alpha", **SMALL) as server:
            async with client_of(server) as client:
                for _ in range(2):
                    refused = await client.post(CHAT, json=body("broken", "Hi"))
                    assert refused.status_code == 404
                    assert "broken.gguf is cut off" in refused.json()["error"]["message"]
                    assert "retry-after" not in refused.headers
                assert server.house.manager.counts["load_failures"] == 0
                await ask(client, "alpha", "Still there?")
                with broken.open("ab") as file:  # as a copy goes on: the folder does not change
                    file.write(whole[20 * 2**20 :])
                while server.house.library.get("broken") is None:
                    await asyncio.sleep(0.05)
                await ask(client, "broken", "Hi")
    finally:
        broken.unlink(missing_ok=True)
