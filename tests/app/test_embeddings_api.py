"""POST /v1/embeddings over a real uvicorn, with the fake engine."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from openai import OpenAI

from app.dialects.openai.dialect import EMBEDDINGS
from app.dialects.openai.embeddings.write import pieces
from app.inference.embedding import EmbeddingTask
from app.inference.outcome import RequestOutcome
from app.inference.pieces import PiecesBody
from app.inference.wire_request import WireRequest
from app.server import Server
from app.settings import Settings
from balancer.call import Target
from engines.base import Embeddings
from engines.fake import FakeEngine
from support.server import LiveServer, live_server

PATH = "/v1/embeddings"
TEXTS = ["one two three", "one two three four", "something else entirely"]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(inference_engine="fake", context_length=64) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def embed(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post(PATH, json={"model": "fake", "input": TEXTS, **fields})


def vectors(response: httpx.Response) -> list[list[float]]:
    assert response.status_code == 200, response.text
    body = response.json()
    assert [each["index"] for each in body["data"]] == list(range(len(body["data"])))
    return [each["embedding"] for each in body["data"]]


def test_float_base64_and_token_ids_agree(client: httpx.Client) -> None:
    response = embed(client, user="somebody")
    body = response.json()
    assert (body["object"], body["model"], body["data"][0]["object"]) == ("list", "fake", "embedding")
    assert body["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
    found = vectors(response)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.dot(found[0], found[1]) > 0.8 > np.dot(found[0], found[2])
    packed = [base64.b64decode(each) for each in vectors(embed(client, encoding_format="base64"))]  # type: ignore[arg-type]
    assert [np.frombuffer(each, dtype="<f4").tolist() for each in packed] == [
        np.array(each, dtype=np.float32).tolist() for each in found
    ]
    words = FakeEngine()._vocabulary  # in every fake engine a word has the same id, once it was seen
    token_ids = [list(words.tokenize(text)) for text in TEXTS]
    assert vectors(embed(client, input=token_ids)) == found
    assert vectors(embed(client, input=token_ids[0])) == found[:1] == vectors(embed(client, input=TEXTS[0]))


def test_the_sdk_asks_for_base64_and_gets_the_same(server: LiveServer, client: httpx.Client) -> None:
    sdk = OpenAI(base_url=f"{server.url}/v1", api_key="none")
    found = sdk.embeddings.create(model="fake", input=TEXTS)
    expected = np.array(vectors(embed(client)), dtype=np.float32)
    assert np.array([each.embedding for each in found.data], dtype=np.float32).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("fields", "code", "param", "words"),
    [
        ({"input": ""}, "invalid_request_error", "input", "at least 1 character"),
        ({"input": []}, "invalid_request_error", "input", "at least 1 and at most"),
        ({"input": ["a", ""]}, "invalid_request_error", "input.1", "at least 1 character"),
        ({"input": [[1], []]}, "invalid_request_error", "input.1", "at least 1"),
        ({"input": ["a"] * 2049}, "invalid_request_error", "input", "2048"),
        ({"input": [[-1]]}, "invalid_request_error", "input.0.0", "greater than"),
        ({"input": [[2**50]]}, "invalid_request_error", "input.0", "no token"),
        ({"input": {}}, "invalid_request_error", "input", ""),
        ({"input": ["a", "w " * 65]}, "context_length_exceeded", "input.1", "truncate_prompt_tokens"),
        ({"input": [[66] * 65]}, "context_length_exceeded", "input.0", "truncate_prompt_tokens"),
        ({"dimensions": 8}, "unsupported_feature", "dimensions", "16 numbers only"),
        ({"dimensions": 0}, "invalid_request_error", "dimensions", ""),
        ({"encoding_format": "int8"}, "invalid_request_error", "encoding_format", "base64"),
        ({"normalize": False}, "unsupported_feature", "normalize", "leave `normalize` out"),
        ({"truncate": "START"}, "unsupported_feature", "truncate", "END"),
        ({"truncate_prompt_tokens": 0}, "invalid_request_error", "truncate_prompt_tokens", ""),
    ],
)
def test_what_cannot_be_is_told(
    client: httpx.Client, fields: dict[str, Any], code: str, param: str, words: str
) -> None:
    response = embed(client, **fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == code
    assert error["param"].startswith(param)
    assert words in error["message"]


def test_inputs_are_cut_only_if_asked(client: httpx.Client) -> None:
    long = "w" + " w" * 99
    for fields, tokens in (
        ({"truncate_prompt_tokens": 3}, 3),
        ({"truncate_prompt_tokens": -1}, 64),
        ({"truncate": True}, 64),
        ({"truncate": "END", "input": [[66] * 99]}, 64),
    ):
        response = embed(client, **{"input": [long], **fields})  # type: ignore[arg-type]
        assert response.json()["usage"]["prompt_tokens"] == tokens


def test_harmless_and_unknown_fields(client: httpx.Client) -> None:
    response = embed(client, normalize=True, dimensions=16, made_up=1, encoding_format=None)
    assert response.status_code == 200
    assert response.headers["x-enginehouse-ignored"] == "made_up"


def test_shorter_vectors_of_a_model_that_was_made_for_them(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, client: httpx.Client
) -> None:
    whole = np.array(vectors(embed(client)))
    engine = server.engine()
    assert isinstance(engine, FakeEngine)
    monkeypatch.setattr(
        engine, "_info", FakeEngine(context_length=64, matryoshka=True, dimensions=(4, 8))._info
    )
    short = np.array(vectors(embed(client, dimensions=4)))
    assert short.shape == (3, 4)
    expected = whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True)
    assert short == pytest.approx(expected, abs=1e-6)
    assert "4, 8, 16" in embed(client, dimensions=5).json()["error"]["message"]
    assert "16 numbers at most" in embed(client, dimensions=17).json()["error"]["message"]


@pytest.mark.parametrize("kind", ["local", "process", "upstream"])
async def test_other_backends_give_the_same(server: LiveServer, client: httpx.Client, kind: str) -> None:
    """Instances in turn, a worker, and another server; each outcome has the tokens and who served it."""
    settings: dict[str, Any] = {"inference_engine": "fake", "context_length": 64, "auto_scaling": False}
    body = {"model": "fake", "input": TEXTS, "encoding_format": "base64"}
    expected = embed(client, encoding_format="base64").json()
    if kind == "upstream":
        settings |= {"upstreams": f"{server.url}/v1#model=far:fake"}
        body["model"] = "far"
    else:
        settings |= {"inference_mode": "load_balance", "cluster_instances": 2 if kind == "local" else 1}
        settings |= {"instance_kind": kind, "instance_port": 18760}
    here = Server(Settings(_env_file=None, **settings))
    outcomes: list[RequestOutcome] = []
    await here.start()
    try:
        here._log = SimpleNamespace(of_this_request=lambda: outcomes.append)  # type: ignore[assignment]
        request = WireRequest("r", PATH, json.dumps(body).encode())
        backends: set[str] = set()
        for _ in range(50):  # the second instance may come later
            task = EMBEDDINGS.parse(body, here.targets.resolve)
            status, data = await here.pipeline.answer(task, EMBEDDINGS, request)
            found = json.loads(data)
            assert status == 200
            assert (found["data"], found["usage"]) == (expected["data"], expected["usage"])
            backends.add(outcomes[-1].backend)
            if len(backends) == (2 if kind == "local" else 1):
                break
            await asyncio.sleep(0.02)
    finally:
        await here.stop()
    assert len(backends) == (2 if kind == "local" else 1)
    assert {each.usage.prompt_tokens for each in outcomes} == {10}


async def test_a_large_answer_is_written_in_short_steps() -> None:
    rows = np.linspace(0, 1, 2048 * 384, dtype=np.float32).reshape(2048, 384)
    longest, last = 0.0, 0.0

    async def watch() -> None:
        nonlocal longest, last
        while True:
            last = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - last)

    for as_base64 in (False, True):
        task = EmbeddingTask(target=Target("m"), inputs=(), as_base64=as_base64)
        watching = asyncio.create_task(watch())
        parts = [part async for part in PiecesBody(pieces(task, Embeddings(rows, (1,))))]
        watching.cancel()
        assert len(json.loads(b"".join(parts))["data"]) == 2048
    # Computing time of one step: a whole answer takes hundreds of milliseconds.
    assert longest < 0.1
