"""Reranking over HTTP: its shapes, its refusals, and its routes, on the fake engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.dialects.openai.rerank.schema import MAX_DOCUMENTS
from support.server import LiveServer, live_server, wait_until
from support.tiny_gguf import tiny_gguf
from support.tiny_reranker import tiny_reranker

QUERY = "what is the capital of france"
DOCUMENTS = ["the sea", "paris is the capital of france", "berlin"]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(inference_engine="fake", context_length=64, api_keys="k") as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer k"}
    with httpx.Client(base_url=server.url, timeout=30, headers=headers) as client:
        yield client


def rerank(client: httpx.Client, path: str = "/v1/rerank", **fields: Any) -> httpx.Response:
    return client.post(path, json={"model": "fake", "query": QUERY, "documents": DOCUMENTS} | fields)


def error(response: httpx.Response) -> tuple[int, str | None, str, str]:
    told = response.json()["error"]
    return response.status_code, told["param"], told["code"], told["message"]


def test_the_best_come_first(client: httpx.Client) -> None:
    answer = rerank(client).json()
    assert set(answer) == {"id", "object", "model", "results", "usage", "meta"}
    scores = [result["relevance_score"] for result in answer["results"]]
    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2]
    assert answer["results"][0]["index"] == 1
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 20
    assert all(set(result) == {"index", "relevance_score"} for result in answer["results"])


def test_as_many_as_are_wanted_with_their_texts(client: httpx.Client) -> None:
    objects = [{"text": text} for text in DOCUMENTS]
    answer = rerank(client, documents=objects, top_n=1, return_documents=True).json()
    assert [result["document"] for result in answer["results"]] == [{"text": DOCUMENTS[1]}]
    assert len(rerank(client, top_n=9).json()["results"]) == 3


def test_the_shape_of_text_embeddings_inference(client: httpx.Client) -> None:
    body = {"query": QUERY, "texts": DOCUMENTS, "return_text": True}
    answer = client.post("/rerank", json=body).json()
    assert [set(result) for result in answer] == [{"index", "score", "text"}] * 3
    assert answer[0]["text"] == DOCUMENTS[1]
    raw = client.post("/rerank", json={**body, "raw_scores": True}).json()
    assert [each["index"] for each in raw] == [each["index"] for each in answer]
    assert raw[0]["score"] > 1 > answer[0]["score"]


def test_scores_of_pairs_in_their_order(client: httpx.Client) -> None:
    answer = client.post("/score", json={"model": "fake", "text_1": QUERY, "text_2": DOCUMENTS}).json()
    assert [each["index"] for each in answer["data"]] == [0, 1, 2]
    ranked = {each["index"]: each["relevance_score"] for each in rerank(client).json()["results"]}
    assert {each["index"]: each["score"] for each in answer["data"]} == ranked
    odd = client.post("/score", json={"model": "fake", "text_1": ["a", "b"], "text_2": ["c", "d", "e"]})
    assert error(odd)[:3] == (400, "text_1", "invalid_request_error")


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank", "/reranking", "/v1/reranking/"])
def test_every_path_is_there_and_guarded(client: httpx.Client, path: str) -> None:
    assert rerank(client, path).status_code == 200
    assert httpx.post(f"{client.base_url}{path}", json={}).status_code == 401


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"documents": []}, "documents", "invalid_request_error"),
        ({"documents": ["a"] * (MAX_DOCUMENTS + 1)}, "documents", "invalid_request_error"),
        ({"documents": ["a", {"image": "b"}]}, "documents.1.text", "invalid_request_error"),
        ({"documents": None}, "documents", "invalid_request_error"),
        ({"query": ""}, "query", "invalid_request_error"),
        ({"top_n": 0}, "top_n", "invalid_request_error"),
        ({"instruction": "be kind"}, "instruction", "unsupported_feature"),
        ({"documents": ["a", "word " * 80]}, "documents.1", "context_length_exceeded"),
        ({"model": "nobody"}, None, "model_not_found"),
    ],
)
def test_what_is_wrong_is_named(client: httpx.Client, fields: dict[str, Any], param: str, code: str) -> None:
    status, named, what, message = error(rerank(client, **fields))
    assert (status, named, what) == (404 if code == "model_not_found" else 400, param, code), message


def test_what_is_too_long_is_cut_where_that_is_asked_for(client: httpx.Client) -> None:
    texts = ["a", "word " * 80]
    refused = client.post("/rerank", json={"query": QUERY, "texts": texts})
    assert error(refused)[:3] == (400, "texts.1", "context_length_exceeded")
    assert "truncate" in error(refused)[3]
    assert client.post("/rerank", json={"query": QUERY, "texts": texts, "truncate": True}).status_code == 200
    assert rerank(client, documents=texts, max_tokens_per_doc=8).status_code == 200
    assert rerank(client, documents=texts, truncate_prompt_tokens=-1).status_code == 200


def test_models_for_something_else_say_so_before_they_are_loaded(tmp_path: Path) -> None:
    tiny_reranker(tmp_path / "ranks.gguf")
    tiny_gguf(tmp_path / "talks.gguf")
    chat = {"model": "ranks", "messages": [{"role": "user", "content": "Hi"}]}
    with (
        live_server(inference_engine="fake", model_base_path=tmp_path) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for answer, words in (
            (rerank(client, model="talks"), ("generates text", "ranks no documents", "such as ranks")),
            (client.post("/v1/chat/completions", json=chat), ("ranks documents", "/v1/rerank")),
            (client.post("/v1/embeddings", json={"model": "ranks", "input": "Hi"}), ("ranks documents",)),
        ):
            status, param, code, message = error(answer)
            assert (status, param, code) == (400, "model", "unsupported_feature")
            assert all(word in message for word in words), message
        tiny_reranker(tmp_path / "ranks-too.gguf")
        client.get("/v1/models")
        wait_until(lambda: len(server.house.targets.models_for("rerank")) == 2)
        status, param, _, message = error(client.post("/rerank", json={"query": "a", "texts": ["b"]}))
        assert (status, param) == (400, "model")
        assert "ranks, ranks-too" in message or "ranks-too, ranks" in message


@pytest.mark.parametrize("body", [{"documents": DOCUMENTS}, {"texts": DOCUMENTS}], ids=["cohere", "tei"])
def test_another_server_ranks_as_this_one_does(
    server: LiveServer, client: httpx.Client, body: dict[str, Any]
) -> None:
    asked = {"query": QUERY, **body}
    expected = client.post("/rerank", json={"model": "fake", **asked}).json()
    there = f"{server.url}/v1#key=k&model=far:fake"
    with (
        live_server(inference_engine="fake", upstreams=there) as here,
        httpx.Client(base_url=here.url) as client,
    ):
        wait_until(lambda: here.house.fleet.upstreams.serving("far"))
        found = client.post("/v2/rerank", json={"model": "far", **asked}).json()
    if "documents" in body:
        found, expected = found["results"], expected["results"]
    assert found == expected
