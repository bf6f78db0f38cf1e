"""Ollama's API: its own client against a real server, with a fake engine that says what it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from engines.base import Engine, Structure
from engines.errors import EngineError
from engines.fake import FakeEngine
from engines.load_spec import LoadSpec
from engines.progress import Progress
from engines.registry import ENGINES
from support import stub_server
from support.gguf import FILE
from support.hub import Hub
from support.hub import running as running_hub
from support.marks import MarkReader
from support.pictures import picture
from support.server import LiveServer, live_server
from support.stub_server import Stub

QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
ALL = ("chat", "completion", "tools", "reasoning", "structured", "embeddings", "fim", "vision")
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
CATALOG = """
models:
  - {name: able, engine: fake}
  - {name: plain, engine: fake}
  - {name: small, hub: someone/small-gguf}
"""


async def load_fake(spec: LoadSpec, progress: Progress | None) -> Engine:
    if spec.name == "able":
        return FakeEngine(spec.name, capabilities=ALL, make_reader=MarkReader)
    return FakeEngine(spec.name, capabilities=("chat", "completion"))


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        hub.repos["someone/small-gguf"] = {"small.Q4_0.gguf": FILE + bytes(200_000)}
        yield hub


@pytest.fixture(scope="module")
def upstream() -> Iterator[Stub]:
    with stub_server.running() as stub:
        yield stub


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, hub: Hub, upstream: Stub) -> Iterator[LiveServer]:
    base: Path = tmp_path_factory.mktemp("models")
    (base / "models.yaml").write_text(CATALOG)
    modes = {
        "inference_mode": "multi_instance",
        "max_concurrent_models": 3,
        "upstreams": f"{upstream.url}/v1",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setitem(ENGINES, "fake", replace(ENGINES["fake"], opener=lambda: load_fake))
        with live_server(model_base_path=base, default_model="able", ollama_api=True, **modes) as server:
            yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[ollama.Client]:
    with ollama.Client(server.url) as client:
        yield client


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def engine(server: LiveServer, answer: str | None = None) -> FakeEngine:
    """The able engine, which will say ``answer``."""
    with ollama.Client(server.url) as client:
        client.generate("able")  # another test may have unloaded it
    found = server.engine("able")
    assert isinstance(found, FakeEngine)
    found.answer = answer
    return found


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


# -- answers ----------------------------------------------------------------------------------------


async def test_chats_streamed_and_whole_say_the_same(server: LiveServer, client: ollama.Client) -> None:
    engine(server, '~Let me think.^Look. @get_weather${"city": "Paris"}@get_weather${"city": "Rome"}')
    whole = client.chat("able", QUESTION, tools=[WEATHER])
    assert (whole.message.thinking, whole.message.content) == ("Let me think.", "Look. ")
    calls = whole.message.tool_calls or ()
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("get_weather", {"city": "Paris"}),
        ("get_weather", {"city": "Rome"}),
    ]
    assert (whole.model, whole.done, whole.done_reason) == ("able", True, "stop")
    async with ollama.AsyncClient(server.url) as other:
        stream = await other.chat("able", QUESTION, tools=[WEATHER], stream=True)
        parts = [part async for part in stream]
    assert "".join(part.message.thinking or "" for part in parts) == whole.message.thinking
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [call for part in parts for call in part.message.tool_calls or ()] == list(calls)
    assert [part.done for part in parts] == [*[False] * (len(parts) - 1), True]
    for last in (whole, parts[-1]):
        assert last.load_duration == 0
        counted = (last.prompt_eval_count, last.eval_count)
        assert counted == (whole.prompt_eval_count, whole.eval_count)
        assert all(counted)
        assert (last.total_duration or 0) >= (last.prompt_eval_duration or 0) > 1
        assert (last.total_duration or 0) >= (last.eval_duration or 0) > 1


def test_the_bytes_of_a_stream(server: LiveServer, http: httpx.Client) -> None:
    """As other clients than Ollama's own read them: a line each, streamed unless told otherwise."""
    engine(server, "Hello there.")
    found = lines(http.post("/api/chat", json={"model": "able", "messages": QUESTION}))
    assert set(found[0]) == {"model", "created_at", "message", "done"}
    assert found[0]["message"] == {"role": "assistant", "content": "Hello"}
    assert found[0]["created_at"].endswith("Z")
    assert found[-1]["message"] == {"role": "assistant", "content": ""}
    assert all(type(found[-1][name]) is int for name in found[-1] if name.endswith(("_count", "_duration")))
    answer = http.post("/api/chat", json={"model": "able", "messages": QUESTION, "stream": False})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["message"]["content"] == "Hello there."
    assert answer.headers["x-enginehouse-backend"]


def test_generate_goes_through_the_chat_template_unless_raw(
    server: LiveServer, client: ollama.Client
) -> None:
    engine(server)  # it echoes its prompt
    said = client.generate("able:latest", "Hi", system="Be brief.")
    assert said.model == "able:latest"
    assert "user" in (said.response or "")
    assert "Be brief." in (said.response or "")
    assert client.generate("able", "Hi you", raw=True).response == "Hi you"
    streamed = client.generate("able", "Hi you", raw=True, stream=True)
    assert "".join(part.response or "" for part in streamed) == "Hi you"
    engine(server, "~Hm.^Yes.")
    found = client.generate("able", "Hi", options={"num_predict": 2})
    assert (found.thinking, found.done_reason, found.eval_count) == ("Hm", "length", 2)


def test_options_reach_the_engine(server: LiveServer, client: ollama.Client) -> None:
    fake = engine(server, "A b c d.")
    options = {
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.6,
        "min_p": 0.1,
        "seed": 9,
        "stop": ["c"],
        "repeat_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "num_predict": 50,
        "num_ctx": 4096,
        "num_gpu": 99,
        "use_mmap": True,
        "mirostat": 0,
        "tfs_z": 1.0,
    }
    found = client.chat("able", QUESTION, options=options, format=PARAMETERS)
    assert (found.message.content, found.done_reason) == (".A b ", "stop")  # the seed says where it begins
    request = fake.last_request
    assert request is not None
    assert request.structure == Structure("json_schema", json.dumps(PARAMETERS), strict=False)
    drawn = request.sampling
    assert (drawn.temperature, drawn.top_k, drawn.top_p, drawn.min_p, drawn.seed) == (0.5, 7, 0.6, 0.1, 9)
    assert (drawn.repetition_penalty, drawn.presence_penalty, drawn.frequency_penalty) == (1.1, 0.5, 0.25)
    assert (request.max_tokens, request.stop) == (50, ("c",))
    client.generate("able", "Hi", options={"seed": -1, "num_predict": -1}, format="json")
    assert fake.last_request is not None
    assert fake.last_request.sampling.seed is None
    assert fake.last_request.max_tokens is None
    assert fake.last_request.structure == Structure("json_object")


def test_what_does_not_count_is_told(server: LiveServer, http: httpx.Client) -> None:
    engine(server, "Hi.")
    body = {"model": "able", "prompt": "Hi", "options": {"num_ctx": 9, "num_gpu": 1, "tpo_p": 1}, "contxt": 1}
    answer = http.post("/api/generate", json=body)
    ignored = answer.headers["x-enginehouse-ignored"].split(", ")
    assert sorted(ignored) == ["contxt", "options.num_ctx", "options.tpo_p"]


@pytest.mark.parametrize(
    ("think", "effort"), [(None, None), (True, "medium"), (False, "none"), ("high", "high")]
)
def test_thinking_is_asked_for(
    server: LiveServer, client: ollama.Client, think: Any, effort: str | None
) -> None:
    fake = engine(server, "Hi.")
    found = None
    try:
        client.chat("able", QUESTION, think=think)
    except ollama.ResponseError as error:
        found = error.error
    if effort in (None, "none"):
        assert found is None
        assert fake.last_rendering is not None
        assert fake.last_rendering.reasoning_effort == effort
    else:  # the fake engine's template cannot reason, and says so
        assert found is not None
        assert "leave think out" in found


def test_log_probabilities(server: LiveServer, client: ollama.Client) -> None:
    engine(server, "c d")
    chat = client.chat("able", QUESTION, logprobs=True, top_logprobs=2)
    raw = client.generate("able", "x", raw=True, logprobs=True, top_logprobs=2)
    for found in (chat.logprobs, raw.logprobs):
        assert found is not None
        assert [each.token for each in found] == ["c", " d"]
        assert found[0].logprob < 0
        assert found[0].top_logprobs is not None
        assert found[0].top_logprobs[0].token == "c"
    assert client.chat("able", QUESTION).logprobs is None


def test_suffixes_fill_in_the_middle(server: LiveServer, client: ollama.Client) -> None:
    fake = engine(server, "x")
    client.generate("able", "def f(", suffix="): pass")
    assert fake.last_request is not None
    told = "".join(label.decode() for label in fake.labels(fake.last_request.prompt.token_ids))
    assert "def f(" in told
    assert "): pass" in told


def test_pictures_are_seen(server: LiveServer, client: ollama.Client) -> None:
    fake = engine(server, "A picture.")
    red = picture("red")
    client.chat("able", [{"role": "user", "content": "What is it?", "images": [red]}])
    assert fake.last_request is not None
    assert [each.data for each in fake.last_request.prompt.media] == [red]
    client.generate("able", "What is it?", images=[red])
    assert len(fake.last_request.prompt.media) == 1
    for name, images in (("plain", [red]), ("able", [b"no picture"])):
        with pytest.raises(ollama.ResponseError) as refused:
            client.chat(name, [{"role": "user", "content": "What?", "images": images}])
        assert refused.value.status_code == 400
        assert "image" in refused.value.error


def test_embeddings(server: LiveServer, client: ollama.Client) -> None:
    engine(server)
    found = client.embed("able", ["a b", "c"])
    assert [len(vector) for vector in found.embeddings] == [16, 16]
    assert found.prompt_eval_count == 3
    one = client.embed("able", "a b").embeddings[0]
    assert list(one) == list(found.embeddings[0]) == list(client.embeddings("able", "a b").embedding)
    assert client.embed("able", []).embeddings == []
    with pytest.raises(ollama.ResponseError, match="empty text"):
        client.embed("able", ["a", ""])
    long = "word " * 9000
    assert client.embed("able", long).prompt_eval_count == 8192
    with pytest.raises(ollama.ResponseError) as refused:
        client.embed("able", long, truncate=False)
    assert refused.value.status_code == 400


# -- models -----------------------------------------------------------------------------------------


def test_models_are_listed_and_shown(server: LiveServer, client: ollama.Client, http: httpx.Client) -> None:
    engine(server)
    version = http.get("/api/version").json()["version"]
    assert all(part.isdigit() for part in version.split("."))
    names = {each.model for each in client.list().models}
    assert {"able", "plain", "SmolLM2-135M-Instruct", "stub-model"} <= names
    assert "small" not in names, "it is not on disk"
    (loaded,) = [each for each in client.ps().models if each.name == "able"]
    assert (loaded.context_length, loaded.expires_at.year > 2300) == (8192, True)
    shown = client.show("SmolLM2-135M-Instruct:latest")
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.embedding_length"] == 576
    assert "tokenizer.ggml.tokens" not in shown.modelinfo
    assert shown.capabilities == ["completion", "tools"]
    assert "<|im_start|>" in (shown.template or "")
    assert "temperature" in (shown.parameters or "")
    assert shown.details is not None
    assert shown.details.family == "llama"
    assert shown.details.quantization_level in ("Q4_0", "Q4_1")  # by what is quick on the machine
    assert shown.details.parameter_size == "135M"
    assert client.show("able").capabilities == [
        "completion",
        "tools",
        "thinking",
        "vision",
        "embedding",
        "insert",
    ]
    assert client.show("stub-model").modelinfo == {"general.architecture": "unknown"}


@pytest.mark.parametrize("route", ["generate", "chat"])
def test_requests_for_nothing_load_and_unload(
    server: LiveServer, client: ollama.Client, http: httpx.Client, route: str
) -> None:
    ask = getattr(client, route)
    loaded = ask("plain", keep_alive="10m")
    assert (loaded.done, loaded.done_reason) == (True, "load")
    (plain,) = [each for each in client.ps().models if each.name == "plain"]
    assert plain.expires_at.year < 2300
    unloaded = ask("plain:latest", keep_alive=0)
    assert (unloaded.model, unloaded.done_reason) == ("plain:latest", "unload")
    assert "plain" not in {each.name for each in client.ps().models}
    with pytest.raises(ollama.ResponseError, match="stub-model"):
        ask("stub-model", keep_alive=0)


def test_a_model_is_pulled_and_deleted(server: LiveServer, client: ollama.Client) -> None:
    told = list(client.pull("small", stream=True))
    assert told[0].status == "pulling manifest"
    assert told[-1].status == "success"
    bars = [each for each in told if each.digest]
    assert all(each.status == f"pulling {str(each.digest)[7:19]}" for each in bars)
    assert all(
        each.total is not None for each in bars
    )  # none, if it is over before there is progress to tell
    assert client.pull("hf.co/someone/small-gguf").status == "success"
    assert "small" in {each.model for each in client.list().models}
    files = list(server.house.library.base.rglob("small*.gguf"))
    assert files
    assert client.delete("small").status == "success"
    assert not any(file.exists() for file in files)
    assert "small" not in {each.model for each in client.list().models}
    for name, status in (("small", 400), ("SmolLM2-135M-Instruct", 400), ("nope", 404)):
        with pytest.raises(ollama.ResponseError) as refused:
            client.delete(name)
        assert refused.value.status_code == status
    with pytest.raises(ollama.ResponseError, match="catalog model"):
        list(client.pull("nope", stream=True))


def test_what_open_webui_sends(server: LiveServer, http: httpx.Client) -> None:
    """The requests of a conversation in its browser, as it sends them, and what it reads of the answers."""
    engine(server, "Hello there.")
    assert isinstance(http.get("/api/version").json()["version"], str)
    listed = {each["model"]: each for each in http.get("/api/tags").json()["models"]}
    assert set(listed["able"]) >= {"name", "model", "modified_at", "size", "digest", "details"}
    (loaded,) = [each for each in http.get("/api/ps").json()["models"] if each["model"] == "able"]
    assert set(loaded) >= {"expires_at", "size_vram", "size", "digest", "details"}
    body = {
        "model": "able",
        "messages": [{"role": "system", "content": "Be brief."}, *QUESTION],
        "options": {"num_ctx": 8192, "temperature": 0.7, "num_predict": 100},
        "stream": True,
        "keep_alive": "30m",
        "format": "",
        "think": None,
        "tools": [],
    }
    with http.stream("POST", "/api/chat", json=body) as answer:
        told = [json.loads(line) for line in answer.iter_lines()]
    assert "".join(each["message"]["content"] for each in told) == "Hello there."
    last = told[-1]
    assert last["eval_count"] / (last["eval_duration"] / 1e9) > 0
    body = {"model": "able", "input": ["a", "b"], "truncate": True}
    assert len(http.post("/api/embed", json=body).json()["embeddings"]) == 2


def test_what_editors_read_of_models(http: httpx.Client) -> None:
    version = [int(part) for part in http.get("/api/version").json()["version"].split(".")]
    assert version >= [0, 6, 4], "VS Code's Copilot asks for this"
    shown = http.post("/api/show", json={"model": "SmolLM2-135M-Instruct"}).json()
    architecture = shown["model_info"]["general.architecture"]
    assert shown["model_info"][f"{architecture}.context_length"] == 8192
    assert "tools" in shown["capabilities"]


# -- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/api/chat", {"model": "nope", "messages": QUESTION}, 404, "nope"),
        ("/api/chat", {"messages": QUESTION}, 400, "model"),
        (
            "/api/chat",
            {"model": "able", "messages": [{"role": "user", "content": 1}]},
            400,
            "messages.0.content",
        ),
        ("/api/chat", {"model": "able", "messages": QUESTION, "options": {"top_p": 2}}, 400, "options.top_p"),
        (
            "/api/chat",
            {"model": "able", "messages": QUESTION, "options": {"tfs_z": 0.5}},
            400,
            "options.tfs_z",
        ),
        ("/api/chat", {"model": "plain", "messages": QUESTION, "tools": [WEATHER]}, 400, "tool calling"),
        ("/api/chat", {"model": "able", "messages": QUESTION, "think": "much"}, 400, "think"),
        ("/api/chat", {"model": "able", "messages": QUESTION, "format": "yaml"}, 400, "format"),
        ("/api/generate", {"model": "able", "prompt": "x", "template": "{{ .P }}"}, 400, "models.yaml"),
        ("/api/generate", {"model": "able", "prompt": "x", "raw": True, "system": "y"}, 400, "system"),
        ("/api/generate", {"model": "able", "prompt": "x", "options": 1}, 400, "options"),
        ("/api/generate", {"model": "able", "prompt": "w " * 9000}, 400, "context"),
        ("/api/embed", {"model": "able"}, 400, "input"),
        ("/api/show", {}, 400, "model is missing"),
        ("/api/show", {"model": "nope"}, 404, "nope"),
        ("/api/copy", {}, 404, "aliases"),
        ("/api/create", {}, 404, "models.yaml"),
        ("/api/push", {}, 404, "registries"),
        ("/api/blobs/sha256:x", {}, 404, "/api/pull"),
        ("/api/nowhere", {}, 404, "no such route"),
    ],
)
def test_errors_are_one_sentence(
    http: httpx.Client, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == status, answer.text
    (message,) = answer.json().values()
    assert set(answer.json()) == {"error"}
    assert words in message


def test_a_stream_that_fails_ends_with_an_error(server: LiveServer, client: ollama.Client) -> None:
    fake = engine(server, "word " * 500)
    # An answer that has a structure is not begun again elsewhere.
    stream = client.chat("able", QUESTION, stream=True, format="json")
    fake._delay = 0.001
    try:
        next(stream)
        fake.fail_next = EngineError("it fell over")
        with pytest.raises(ollama.ResponseError, match="it fell over"):
            list(stream)
        fake.fail_next = EngineError("and again")
        with pytest.raises(ollama.ResponseError, match="and again") as failed:
            client.chat("able", QUESTION, format="json")
        assert failed.value.status_code == 500
    finally:
        fake._delay, fake.fail_next = 0.0, None


@pytest.mark.parametrize("stream", [False, True])
def test_upstreams_answer_too(server: LiveServer, http: httpx.Client, upstream: Stub, stream: bool) -> None:
    upstream.reset()
    body = {"model": "stub-model", "messages": QUESTION, "options": {"seed": 3}, "stream": stream}
    answer = http.post("/api/chat", json=body)
    found = lines(answer) if stream else [answer.json()]
    assert "".join(each["message"]["content"] for each in found) == "Hello wörld!"
    assert found[-1]["done"] is True
    asked = upstream.requests[-1]
    assert (asked["model"], asked["seed"], asked["stream"]) == ("stub-model", 3, True)
    assert upstream.headers[-1]["content-type"] == "application/json"

    upstream.mode = "error"
    answer = http.post("/api/chat", json=body)
    # Of what is told whole nothing was said before; a stream may have begun, and ends with it.
    assert answer.status_code == 502 or (stream and answer.status_code == 200)
    assert set(json.loads(answer.text.splitlines()[-1])) == {"error"}
    upstream.answers["POST /v1/chat/completions"] = (400, {"error": {"message": "too long", "code": "x"}})
    answer = http.post("/api/chat", json=body)
    assert (answer.status_code, answer.json()) == (400, {"error": "too long"})
    upstream.answers["POST /v1/chat/completions"] = (200, {"object": "chat.completion", "choices": []})
    answer = http.post("/api/chat", json=body)
    assert answer.status_code == 502
    assert "asked for a stream" in answer.json()["error"]
    upstream.answers["POST /v1/embeddings"] = (200, {"data": [], "usage": {}})
    answer = http.post("/api/embed", json={"model": "stub-model", "input": "x"})
    assert (answer.status_code, set(answer.json())) == (502, {"error"})


# -- guards -----------------------------------------------------------------------------------------


def test_guards_stand_before_it(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "api_keys": {"user"},
        "admin_api_keys": {"admin"},
        "rate_limit_rpm": 6,
        "max_request_bytes": 1024,
    }
    with (
        live_server(inference_engine="fake", model_base_path=tmp_path, ollama_api=True, **settings) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        model, user = server.house.default.name, {"Authorization": "Bearer user"}

        def status(method: str, path: str, body: Any = None, **headers: str) -> int:
            answer = http.request(method, path, json=body, headers={**user, **headers})
            if answer.status_code >= 400:
                assert list(answer.json()) == ["error"]
                assert isinstance(answer.json()["error"], str)
            return answer.status_code

        assert status("GET", "/api/tags", Authorization="") == 401
        assert status("GET", "/api/nowhere", Authorization="Bearer wrong") == 401
        assert status("GET", "/api/tags") == 200
        assert status("PUT", "/api/chat") == 405
        assert status("POST", "/api/chat", {"model": "x" * 2000}) == 413
        assert status("POST", "/api/pull", {"model": "a/b"}) == 403
        assert status("DELETE", "/api/delete", {"model": model}) == 403
        assert status("POST", "/api/generate", {"model": model, "keep_alive": 0}) == 403
        assert status("POST", "/api/generate", {"model": model, "keep_alive": 60}) == 200
        assert 429 in [status("POST", "/api/generate", {"model": model}) for _ in range(6)]
        assert status("POST", "/api/chat", {"model": model}, Origin="https://evil", Authorization="") == 403
