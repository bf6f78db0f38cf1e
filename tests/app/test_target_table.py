"""Names in requests: aliases, letter case and adapters mean the same wherever a request is served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engines.fake import FakeEngine
from engines.registry import EngineRegistry
from support.server import LiveServer, live_server
from support.stub_server import Stub, running

CHAT = "/v1/chat/completions"
ADAPTERS = "adapters: [{name: Pirate, path: adapters/pirate}, {name: Sailor, path: adapters/sailor}]"
CATALOG = f"""
models:
  - name: Here-1B
    engine: fake
    aliases: [here]
    sampling: {{temperature: 0.5, stop: ["never said"]}}
    {ADAPTERS}
"""
# It is not on disk: only the upstream has it, and one of its adapters.
REMOTE = f"""
models:
  - name: There-7B
    hub: org/there
    aliases: [there]
    sampling: {{temperature: 0.5, stop: ["never said"]}}
    {ADAPTERS}
  - name: other
    engine: fake
"""
ALL = ("chat", "completion", "adapters")


def catalog(folder: Path, text: str) -> Path:
    (folder / "models.yaml").write_text(text)
    return folder


def ask(url: str, model: str, **fields: object) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, **fields}
    return httpx.post(url + CHAT, json=body, timeout=30)


# -- an engine of this process -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> FakeEngine:
    return FakeEngine("Here-1B", capabilities=ALL)


@pytest.fixture(scope="module")
def local(engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = catalog(tmp_path_factory.mktemp("local"), CATALOG)
    with pytest.MonkeyPatch.context() as patch:

        async def load(*_: object, **__: object) -> FakeEngine:
            return engine

        patch.setattr(EngineRegistry, "load", load)
        with live_server(model_base_path=folder, default_model="Here-1B") as server:
            yield server


@pytest.mark.parametrize(
    ("asked", "name", "adapter"),
    [
        ("Here-1B", "Here-1B", None),
        ("here", "Here-1B", None),
        ("HERE-1b", "Here-1B", None),
        ("Pirate", "Here-1B:Pirate", "Pirate"),
        ("pirate", "Here-1B:Pirate", "Pirate"),
        ("SAILOR", "Here-1B:Sailor", "Sailor"),
        ("Here-1B:Pirate", "Here-1B:Pirate", "Pirate"),
        ("here:SAILOR", "Here-1B:Sailor", "Sailor"),
    ],
)
def test_on_an_engine_of_this_process(
    local: LiveServer, engine: FakeEngine, asked: str, name: str, adapter: str | None
) -> None:
    answer = ask(local.url, asked)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == name
    assert engine.last_request is not None
    assert engine.last_request.adapter == adapter
    # The catalog says some of it; for the rest there is a default that no small model answers nonsense with.
    found = engine.last_request.sampling
    assert (found.temperature, engine.last_request.stop) == (0.5, ("never said",))
    assert (found.top_k, found.top_p, found.min_p) == (40, 0.95, 0.05)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_what_the_client_says_counts_more_than_any_default(
    local: LiveServer, engine: FakeEngine, path: str
) -> None:
    prompt = {"prompt": "hi"} if path != CHAT else {"messages": [{"role": "user", "content": "hi"}]}
    body = {"model": "here", "max_tokens": 2, "temperature": 0, "top_k": 0, "top_p": 1, **prompt}
    assert httpx.post(local.url + path, json=body, timeout=30).status_code == 200
    assert engine.last_request is not None
    found = engine.last_request.sampling
    assert (found.temperature, found.top_k, found.top_p, found.min_p) == (0, 0, 1, 0.05)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
def test_an_adapter_is_named_alike_in_every_dialect(local: LiveServer, engine: FakeEngine, path: str) -> None:
    """What the engine lacks for it is told of the adapter's model, not that there is no such model."""
    body = {"model": "here:pirate"} | ({"prompt": "hi"} if "completions" in path else {"input": "hi"})
    answer = httpx.post(local.url + path, json=body, timeout=30)
    assert answer.status_code == 200 or answer.json()["error"]["code"] == "unsupported_feature"


def test_adapters_are_listed_beside_their_models(local: LiveServer) -> None:
    cards = httpx.get(f"{local.url}/v1/models").json()["data"]
    told = {card["id"]: (card["parent"], card["aliases"]) for card in cards}
    assert told["Here-1B"] == (None, ["here"])
    assert told["Here-1B:Pirate"] == ("Here-1B", ["Pirate"])
    assert httpx.get(f"{local.url}/v1/models/HERE:pirate").json()["id"] == "Here-1B:Pirate"
    assert httpx.get(f"{local.url}/v1/models/here:cook").status_code == 404


def test_a_models_status_tells_its_defaults(local: LiveServer) -> None:
    told = httpx.get(f"{local.url}/v1/models/here/status").json()["sampling"]
    expected = {"temperature": 0.5, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "stop": ["never said"]}
    assert told == expected


# -- a worker ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = catalog(tmp_path_factory.mktemp("worker"), CATALOG)
    settings = {"inference_mode": "load_balance", "instance_kind": "process", "cluster_instances": 1}
    with live_server(
        model_base_path=folder, default_model="Here-1B", auto_scaling=False, instance_port=18700, **settings
    ) as server:
        yield server


@pytest.mark.processes
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asked", ["Here-1B", "here", "HERE-1b"])
def test_on_a_worker(worker: LiveServer, asked: str, stream: bool) -> None:
    answer = ask(worker.url, asked, stream=stream)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-enginehouse-backend"] == "instance_0"
    assert '"model":"Here-1B"' in answer.text


@pytest.mark.parametrize("asked", ["Pirate", "here:pirate"])
def test_an_adapter_is_not_replaced_by_its_base_model_on_a_worker(worker: LiveServer, asked: str) -> None:
    """The worker's engine has no adapters, and says so."""
    answer = ask(worker.url, asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsupported_feature"
    assert answer.json()["error"]["param"] == "model"


# -- an upstream -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with running() as stub:
        yield stub


@pytest.fixture(scope="module")
def upstream(stub: Stub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = catalog(tmp_path_factory.mktemp("upstream"), REMOTE)
    models = "model=There-7B:org/theirs&model=Pirate:their-pirate&model=Foreign&model=other"
    with live_server(
        model_base_path=folder, default_model="other", upstreams=f"{stub.url}/v1#{models}"
    ) as server:
        yield server


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("There-7B", "org/theirs"),
        ("there", "org/theirs"),
        ("THERE-7b", "org/theirs"),
        ("Pirate", "their-pirate"),
        ("pirate", "their-pirate"),
        ("There-7B:Pirate", "their-pirate"),
        ("THERE:pirate", "their-pirate"),
        ("Foreign", "Foreign"),
        ("foreign", "Foreign"),
    ],
)
def test_on_an_upstream(upstream: LiveServer, stub: Stub, asked: str, sent: str) -> None:
    stub.reset()
    assert ask(upstream.url, asked, stream=True).status_code == 200
    [request] = stub.requests
    assert request["model"] == sent
    # The catalog's sampling holds there too, but not for a model that no catalog knows.
    # Nobody says the rest of it: what holds there is for the upstream to say.
    known = {"temperature": 0.5, "stop": ["never said"]}
    assert {key: request.get(key) for key in known} == (known if sent != "Foreign" else dict.fromkeys(known))
    assert not {"top_k", "top_p", "min_p"} & request.keys()


def test_a_model_that_is_here_and_there_answers_alike(upstream: LiveServer, stub: Stub) -> None:
    stub.reset()
    for _ in range(4):
        assert ask(upstream.url, "other", stream=True, top_k=7).status_code == 200
    assert stub.requests
    for request in stub.requests:
        found = {name: request.get(name) for name in ("temperature", "top_k", "top_p", "min_p")}
        assert found == {"temperature": 0.8, "top_k": 7, "top_p": 0.95, "min_p": 0.05}


def test_what_the_client_says_counts_more_than_the_catalog(upstream: LiveServer, stub: Stub) -> None:
    stub.reset()
    ask(upstream.url, "there", stream=True, temperature=0.1, stop="x")
    [request] = stub.requests
    assert (request["temperature"], request["stop"]) == (0.1, "x")


@pytest.mark.parametrize("asked", ["Sailor", "SAILOR", "there:sailor"])
def test_no_adapter_reaches_an_upstream_that_lacks_it(upstream: LiveServer, stub: Stub, asked: str) -> None:
    """Nor is it replaced by its base model, which the upstream has."""
    stub.reset()
    answer = ask(upstream.url, asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert stub.requests == []


def test_a_body_that_needs_no_change_is_sent_as_it_came(upstream: LiveServer, stub: Stub) -> None:
    stub.reset()
    body = json.dumps({"model": "Foreign", "x": [1, 2], "stream": True})
    httpx.post(upstream.url + CHAT, content=body, headers={"content-type": "application/json"})
    assert stub.requests == [json.loads(body)]
