"""/v1/files, by the official client and by hand."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from support.server import LiveServer, live_server

LARGEST = 3 * 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(
        inference_engine="fake",
        api_keys="one,two",
        state_dir=str(tmp_path_factory.mktemp("state")),
        max_request_bytes=2**20,
        max_file_bytes=LARGEST,
        max_stored_bytes=2 * LARGEST,
    ) as live:
        yield live


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="one", max_retries=0) as client:
        yield client


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": "Bearer one"}) as http:
        yield http


def folder(server: LiveServer) -> Path:
    return Path(server.house.settings.state_dir) / "files"


def test_files_of_the_official_client(client: openai.OpenAI, server: LiveServer) -> None:
    content = bytes(range(256)) * 10_000  # more than other requests may have, and no text
    made = client.files.create(
        file=("../a ü.jsonl", content),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (made.bytes, made.filename, made.purpose) == (len(content), "a ü.jsonl", "user_data")
    assert made.expires_at == made.created_at + 3600
    assert client.files.retrieve(made.id) == made
    answer = client.files.content(made.id)
    assert answer.read() == content
    assert answer.response.headers["content-type"] == "application/octet-stream"
    batch = client.files.create(file=io.BytesIO(b"{}\n"), purpose="batch")
    assert batch.expires_at == batch.created_at + 30 * 86400

    assert [each.id for each in client.files.list()] == [batch.id, made.id]
    assert [each.id for each in client.files.list(limit=1, order="asc")] == [
        made.id,
        batch.id,
    ]  # of two pages
    assert [each.id for each in client.files.list(purpose="batch")] == [batch.id]
    assert client.files.delete(made.id).deleted
    assert client.files.delete(batch.id).deleted
    assert client.files.list().data == []
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)
    assert [path.name for path in folder(server).rglob("*") if path.is_file()] == []


def test_files_are_their_owners(client: openai.OpenAI) -> None:
    made = client.files.create(file=b"mine", purpose="user_data")
    other = client.with_options(api_key="two")
    assert other.files.list().data == []
    for ask in (other.files.retrieve, other.files.content, other.files.delete):
        with pytest.raises(openai.NotFoundError, match="There is no file"):
            ask(made.id)
    assert client.files.content(made.id).read() == b"mine"
    client.files.delete(made.id)


def _form(*parts: tuple[str, bytes]) -> dict[str, Any]:
    body = b"".join(b"--x\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts)
    return {"content": body + b"--x--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}


FILE = ('Content-Disposition: form-data; name="file"; filename="a"', b"abc")
LIFE = ('Content-Disposition: form-data; name="expires_after[seconds]"', b"1")
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
PURPOSE = ('Content-Disposition: form-data; name="purpose"', b"user_data")


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        (_form(FILE), 400, "`purpose` is missing"),
        (_form(PURPOSE), 400, "`file` is missing"),
        (_form(FILE, FILE, PURPOSE), 400, "more than one"),
        (_form(FILE, (PURPOSE[0], b"fine-tune")), 400, "fine-tuning is not served"),
        (_form(FILE, (PURPOSE[0], b"x" * 5000)), 400, "longer than 4096"),
        (_form(*[PURPOSE] * 70), 400, "more than 64 parts"),
        (
            _form(FILE, PURPOSE, (PURPOSE[0].replace("purpose", "expires_after[seconds]"), b"1")),
            400,
            "anchor",
        ),
        ({**_form(FILE, PURPOSE), "content": _form(FILE, PURPOSE)["content"][:-30]}, 400, "ends before"),
        (
            {"content": b"abc", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            400,
            "no valid",
        ),
        ({"json": {"purpose": "batch"}}, 400, "multipart/form-data"),
        ({"content": b""}, 400, "multipart/form-data"),
        (_form((FILE[0], b"a" * (LARGEST + 100_000)), PURPOSE), 413, "larger"),
        ({"content": iter([b"a" * 100_000] * 35)}, 413, "larger"),
    ],
)
def test_bad_uploads_are_told_and_leave_nothing(
    http: httpx.Client, server: LiveServer, request_: dict[str, Any], status: int, says: str
) -> None:
    if not isinstance(request_.get("content", b""), bytes):
        request_ = {**_form(FILE), **request_}
        request_["content"] = iter([_form(FILE)["content"][:-8], *request_["content"]])
    answer = http.post("/v1/files", **request_)
    assert (answer.status_code, says in answer.json()["error"]["message"]) == (status, True), answer.text
    assert [path for path in folder(server).rglob("*") if path.is_file()] == []


def test_other_spellings_and_encodings(http: httpx.Client) -> None:
    request = _form(FILE, PURPOSE)
    for path in ("/files", "/v1/files/", "/openai/v1/files"):
        made = http.post(path, **request)
        assert http.delete(f"/v1/files/{made.json()['id']}").json()["deleted"]
    request["headers"]["Content-Encoding"] = "gzip"
    made = http.post("/v1/files", headers=request["headers"], content=gzip.compress(request["content"]))
    assert http.delete(f"/v1/files/{made.json()['id']}").json()["deleted"]


def test_there_is_a_limit_in_all(client: openai.OpenAI) -> None:
    made = [client.files.create(file=b"a" * (LARGEST - 100), purpose="user_data") for _ in range(2)]
    with pytest.raises(openai.APIStatusError, match="delete some") as caught:
        client.files.create(file=b"a" * 1000, purpose="user_data")
    assert caught.value.status_code == 413
    other = client.with_options(api_key="two")
    other.files.delete(other.files.create(file=b"a" * 1000, purpose="user_data").id)
    for each in made:
        client.files.delete(each.id)


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "order=up", "after=file-1"])
def test_bad_pages_are_told(http: httpx.Client, query: str) -> None:
    answer = http.get(f"/v1/files?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0])


def test_a_broken_database_ends_no_server(tmp_path: Path) -> None:
    (tmp_path / "enginehouse.db").write_bytes(b"no database" * 1000)
    with live_server(inference_engine="fake", state_dir=str(tmp_path)) as live:
        answer = httpx.get(f"{live.url}/v1/files")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
        assert "retry-after" in answer.headers
        assert httpx.get(f"{live.url}/v1/models").status_code == 200
        (tmp_path / "enginehouse.db").unlink()
        assert httpx.get(f"{live.url}/v1/files").json()["data"] == []
