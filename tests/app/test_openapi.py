"""The API does what /openapi.json says: schemathesis asks each route what its schemas allow, and what not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.schemas import APIOperation

from support.server import LiveServer, live_server

EXAMPLES = 3
SEED = 13
# Methods and paths that are not asked: an answer without an end.
LEFT_OUT = {("get", "/v1/system/events")}
# Bodies of answers that come in pieces; what they are is for the clients' own tests.
STREAMED = ("text/event-stream", "application/x-ndjson")
# So many operations there are at least.
MOST_FORGOTTEN = 55


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
        with live_server(
            inference_engine="fake",
            model_base_path=tmp_path_factory.mktemp("models"),
            state_dir=str(tmp_path_factory.mktemp("state")),
            ollama_api=True,
            context_length=256,
            allowed_upstreams="127.0.0.1",
            log_level="ERROR",
        ) as server:
            yield server


@pytest.fixture(scope="module")
def document(server: LiveServer) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()
    return found


def refs(node: Any) -> Iterator[str]:
    """The names of the schemas that ``node`` refers to."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rpartition("/")[2]
        for value in node.values():
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


def test_every_field_that_a_client_may_send_is_described(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    undescribed, seen = set(), set()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query" and not parameter.get("description"):
                    undescribed.add(f"{method} {path}: {parameter['name']}")
            waiting = [*refs(operation.get("requestBody", {}))]
            while waiting:
                if (name := waiting.pop()) in seen:
                    continue
                seen.add(name)
                waiting += refs(schemas[name])
                properties = schemas[name].get("properties", {}).items()
                undescribed |= {
                    f"{name}.{field}"
                    for field, told in properties
                    if not told.get("description") and "const" not in told
                }
    assert len(seen) > 30
    assert sorted(undescribed) == []


def test_every_route_says_what_it_is_for_and_what_it_answers(document: dict[str, Any]) -> None:
    unsaid = [
        f"{method} {path}"
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if not operation.get("summary") or not any(code.startswith("2") for code in operation["responses"])
    ]
    assert unsaid == []


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda m: m.value)
def test_whatever_is_asked_is_answered_as_documented(
    server: LiveServer, document: dict[str, Any], mode: GenerationMode
) -> None:
    asked, wrong = 0, {}
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()
        if (operation.method, operation.path) in LEFT_OUT:
            continue
        if mode is GenerationMode.NEGATIVE and not takes_anything(operation):
            continue
        asked += 1
        faults = ask(server, operation, mode)
        if faults:
            wrong[operation.label] = faults[:2]
    assert asked > (MOST_FORGOTTEN if mode is GenerationMode.POSITIVE else MOST_FORGOTTEN // 2)
    assert wrong == {}


def takes_anything(operation: APIOperation) -> bool:
    parameters = (operation.path_parameters, operation.query, operation.body)
    return any(len(each) for each in parameters)


def ask(server: LiveServer, operation: APIOperation, mode: GenerationMode) -> list[str]:
    """What is wrong with the answers to some requests of an operation."""
    faults: list[str] = []
    model = server.house.default.name
    strategy = operation.as_strategy(generation_mode=mode)

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def run(case: schemathesis.Case) -> None:
        body = case.body
        if mode is GenerationMode.POSITIVE and isinstance(body, dict) and "model" in body:
            body["model"] = model  # any other name gets no further than that
        answer = case.call(base_url=server.url, timeout=30)
        if fault := fault_of(operation, answer):
            faults.append(f"{answer.status_code} {fault}: {str(body)[:300]}")

    run()
    return faults


def fault_of(operation: APIOperation, answer: schemathesis.Response) -> str:
    """What is wrong with an answer; empty if nothing is."""
    kind = answer.headers.get("content-type", [""])[0]
    if answer.status_code == 500:
        return answer.text[:300]
    if answer.status_code >= 400:
        return "" if is_envelope(operation.path, answer) else f"no envelope: {answer.text[:300]}"
    if kind.startswith(STREAMED):
        return ""
    try:
        operation.validate_response(answer)
    except FailureGroup as failed:
        return str(failed.exceptions[0])[:600]
    return ""


def is_envelope(path: str, answer: schemathesis.Response) -> bool:
    """Whether an error is in its API's words."""
    told = json.loads(answer.content)
    if path.startswith("/api/"):
        return set(told) == {"error"} and isinstance(told["error"], str) and bool(told["error"])
    error = told["error"]
    if path.startswith("/v1/messages"):
        return (
            told["type"] == "error" and bool(error["message"]) and error["type"].endswith(("_error", "large"))
        )
    return bool(error["message"]) and {"type", "param", "code"} <= set(error)
