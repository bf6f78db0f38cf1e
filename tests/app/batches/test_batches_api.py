"""/v1/batches, by the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch

from support.server import LiveServer, live_server, wait_until

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(
        inference_engine="fake",
        api_keys="one,two",
        state_dir=str(tmp_path_factory.mktemp("state")),
        max_request_bytes=2**20,
    ) as live:
        yield live


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="one", max_retries=0) as client:
        yield client


def line(id: str, url: str = CHAT, body: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    body = body or {"model": "fake", "messages": [{"role": "user", "content": id}], "max_tokens": 3}
    return {"custom_id": id, "method": "POST", "url": url, "body": body, **fields}


def upload(client: openai.OpenAI, lines: list[Any]) -> str:
    texts = (each if isinstance(each, str) else json.dumps(each) for each in lines)
    return client.files.create(file=("in.jsonl", "\n".join(texts).encode()), purpose="batch").id


def begin(client: openai.OpenAI, lines: list[Any], endpoint: Any = CHAT, **options: Any) -> Batch:
    file = upload(client, lines)
    options = {"completion_window": "24h", **options}
    return client.batches.create(input_file_id=file, endpoint=endpoint, **options)


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    def is_over() -> bool:
        return client.batches.retrieve(batch.id).status in ("completed", "failed", "expired", "cancelled")

    wait_until(is_over, seconds=30)
    return client.batches.retrieve(batch.id)


def results(client: openai.OpenAI, file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    lines = [json.loads(each) for each in client.files.content(file).text.splitlines()]
    assert len({each["custom_id"] for each in lines}) == len(lines)
    return {each["custom_id"]: each for each in lines}


def test_good_and_bad_requests_come_out_apart(client: openai.OpenAI) -> None:
    bad = line("bad", body={"model": "fake", "messages": "none"})
    made = begin(client, [line("a"), "", bad, line("b ü")], metadata={"for": "a test"})
    assert (made.status, made.metadata) == ("validating", {"for": "a test"})
    assert made.expires_at == made.created_at + 86400
    batch = ended(client, made)
    assert batch.status == "completed"
    assert batch.model == "fake"
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 3, "completed": 2, "failed": 1}
    assert None not in (batch.in_progress_at, batch.finalizing_at, batch.completed_at)
    good, failed = results(client, batch.output_file_id), results(client, batch.error_file_id)
    assert good.keys() == {"a", "b ü"}
    answer = good["a"]["response"]
    assert (answer["status_code"], good["a"]["error"]) == (200, None)
    assert answer["body"]["object"] == "chat.completion"
    assert answer["request_id"].startswith("req_")
    assert good["a"]["id"].startswith("batch_req_")
    assert failed["bad"]["response"]["status_code"] == 400
    assert failed["bad"]["response"]["body"]["error"]["param"] == "messages"
    assert batch.usage is not None
    assert batch.usage.output_tokens == 6
    assert batch.usage.total_tokens == batch.usage.input_tokens + 6
    output = client.files.retrieve(str(batch.output_file_id))
    assert (output.purpose, output.filename) == ("batch_output", f"{batch.id}_output.jsonl")


@pytest.mark.parametrize(
    ("endpoint", "body", "object_"),
    [
        ("/v1/completions", {"prompt": "Once"}, "text_completion"),
        ("/v1/responses", {"input": "Once"}, "response"),
    ],
)
def test_other_endpoints(client: openai.OpenAI, endpoint: str, body: dict[str, Any], object_: str) -> None:
    batch = ended(client, begin(client, [line("a", endpoint, {"model": "fake", **body})], endpoint))
    assert results(client, batch.output_file_id)["a"]["response"]["body"]["object"] == object_


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        (["{"], "invalid_json_line", 1),
        (["[]"], "invalid_json_line", 1),
        ([line("a"), "", line("a")], "duplicate_custom_id", 3),
        ([line("")], "missing_required_parameter", 1),
        ([line("a", method="GET")], "invalid_method", 1),
        ([line("a", "/v1/embeddings")], "mismatched_url", 1),
        ([{**line("a"), "body": []}], "missing_required_parameter", 1),
        ([line("a", body={"messages": []})], "missing_required_parameter", 1),
        ([line("a", body={"model": "nobody"})], "model_not_found", 1),
        ([line("a", body={"model": "fake", "stream": True})], "unsupported_parameter", 1),
        ([line("a", body={"model": "x" * 2**20})], "request_too_large", 1),
        (["[" * 200], "invalid_json_line", 1),
        ([" "], "empty_file", None),
    ],
)
def test_mistakes_are_told_with_their_line(
    client: openai.OpenAI, lines: list[Any], code: str, number: int | None
) -> None:
    batch = ended(client, begin(client, lines))
    assert (batch.status, batch.output_file_id) == ("failed", None)
    assert batch.errors is not None
    assert batch.errors.data is not None
    (error,) = batch.errors.data
    assert (error.code, error.line) == (code, number), error


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"endpoint": "/v1/images/edits"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"metadata": {"a": "x" * 600}}, "metadata"),
        ({"input_file_id": "file-none"}, "file_id"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
    ],
)
def test_bad_batches_are_refused(client: openai.OpenAI, change: dict[str, Any], param: str) -> None:
    file = upload(client, [line("a")])
    body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", **change}
    with pytest.raises(openai.APIStatusError) as caught:
        client.batches.create(**body)
    assert caught.value.status_code in (400, 404)
    assert caught.value.param == param


def test_a_file_for_something_else_is_refused(client: openai.OpenAI) -> None:
    file = client.files.create(file=b"{}", purpose="user_data").id
    with pytest.raises(openai.BadRequestError, match="purpose=batch"):
        client.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h")


def test_batches_are_their_owners_and_listed_by_pages(client: openai.OpenAI, server: LiveServer) -> None:
    made = [begin(client, [line("a")]) for _ in range(3)]
    for each in made:
        ended(client, each)
    listed = [each.id for each in client.batches.list(limit=2)]
    assert listed[:3] == [each.id for each in reversed(made)]
    other = client.with_options(api_key="two")
    assert other.batches.list().data == []
    for ask in (other.batches.retrieve, other.batches.cancel):
        with pytest.raises(openai.NotFoundError, match="There is no batch"):
            ask(made[0].id)
    with pytest.raises(openai.BadRequestError, match="it is completed"):
        client.batches.cancel(made[0].id)


@pytest.fixture
def _held(server: LiveServer) -> Iterator[None]:
    """The engine makes no token."""
    engine: Any = server.engine()
    engine._delay = 3600
    yield
    engine._delay = 0


@pytest.mark.usefixtures("_held")
def test_a_batch_is_cancelled(client: openai.OpenAI) -> None:
    made = begin(client, [line(str(i)) for i in range(40)])
    wait_until(lambda: client.batches.retrieve(made.id).status == "in_progress")
    client.files.delete(made.input_file_id)
    assert client.batches.cancel(made.id).status == "cancelling"
    batch = ended(client, made)
    assert batch.status == "cancelled"
    assert None not in (batch.cancelling_at, batch.cancelled_at)
    assert client.batches.cancel(made.id).status == "cancelled"


def test_those_who_wait_come_first(client: openai.OpenAI, server: LiveServer) -> None:
    """Requests of a batch make way for one that somebody waits for, and go on after it."""
    batch = begin(client, [line(str(i)) for i in range(3)])
    answer = httpx.post(
        f"{server.url}{CHAT}",
        json=line("x")["body"],
        headers={"Authorization": "Bearer one"},
    )
    assert answer.status_code == 200
    assert ended(client, batch).status == "completed"


def test_models_of_upstreams_answer_batches_too(tmp_path: Path) -> None:
    with (
        live_server(inference_engine="fake", default_model="far") as far,
        live_server(
            inference_engine="fake",
            default_model="near",
            upstreams=f"{far.url}/v1",
            state_dir=str(tmp_path),
        ) as near,
        openai.OpenAI(base_url=f"{near.url}/v1", api_key="-", max_retries=0) as client,
    ):
        wait_until(lambda: "far" in [each.id for each in client.models.list()])
        messages = [{"role": "user", "content": "Hello"}]
        lines = [line(name, body={"model": name, "messages": messages}) for name in ("near", "far")]
        batch = ended(client, begin(client, lines))
        assert batch.model is None
        found = results(client, batch.output_file_id)
        assert {name: each["response"]["body"]["model"] for name, each in found.items()} == {
            "near": "near",
            "far": "far",
        }
