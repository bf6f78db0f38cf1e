from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, Field, field_validator
from structlog.testing import capture_logs

from app import error_responses, middleware
from app.error_responses import error_response
from app.errors import ApiError, error_body, to_api_error
from app.operations.errors import CannotRestart, RestartFailed, TooManyUpstreams, UpstreamNotAllowed
from app.settings import Settings
from balancer.errors import (
    BackendFailed,
    BackendTimedOut,
    BadAnswer,
    BalancerError,
    CannotServe,
    LoopDetected,
    ModelLoading,
    NoBackend,
    NotLetIn,
    QueueFull,
    UnknownModel,
)
from balancer.proxy.guard import NotAllowed
from engines.errors import (
    BadModelFile,
    CannotLoad,
    ContextLengthExceeded,
    EngineError,
    ModelFileNotFound,
    RequestError,
    UnsupportedFeature,
)
from engines.lifecycle.errors import InsufficientMemory, NeverFits


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ImagePart(BaseModel):
    type: Literal["image_url"]
    image_url: str


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class SystemMessage(BaseModel):
    role: Literal["system"]
    content: str


class UserMessage(BaseModel):
    role: Literal["user"]
    content: str | list[Part]


class Body(BaseModel):
    model: str
    messages: list[Annotated[SystemMessage | UserMessage, Field(discriminator="role")]] = []
    temperature: float = Field(1.0, ge=0, le=2)
    stop: str | list[str] | None = None

    @field_validator("model")
    @classmethod
    def _known(cls, value: str) -> str:
        if value == "bad":
            raise ValueError("must not be bad")
        return value


class Raiser:
    """An app whose /fail route raises what the test put here."""

    error: Exception | None = None


@pytest.fixture
def raiser() -> Raiser:
    return Raiser()


@pytest.fixture
async def client(raiser: Raiser) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    error_responses.install(app)
    middleware.install(app, Settings(_env_file=None))

    @app.post("/body")
    async def body(body: Body) -> str:
        return body.model

    @app.get("/query")
    async def query(limit: Annotated[int, Query(ge=1)]) -> int:
        return limit

    @app.get("/fail")
    async def fail() -> None:
        assert raiser.error is not None
        raise raiser.error

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def subclasses(kind: type[EngineError]) -> Iterator[type[EngineError]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


LOADING = ModelLoading("Loading m.", retry_after=2.2, state="loading", progress=0.4, eta_seconds=2.2)


@pytest.mark.parametrize(
    ("exc", "status", "code", "kind"),
    [
        (RequestError("x", "stop"), 400, "invalid_request_error", "invalid_request_error"),
        (ContextLengthExceeded(8, 9), 400, "context_length_exceeded", "invalid_request_error"),
        (UnsupportedFeature("x"), 400, "unsupported_feature", "invalid_request_error"),
        (EngineError("x"), 500, "engine_error", "server_error"),
        (ModelFileNotFound("x"), 404, "model_not_found", "invalid_request_error"),
        (UnknownModel("x"), 404, "model_not_found", "invalid_request_error"),
        (QueueFull("x"), 429, "queue_full", "rate_limit_error"),
        (NoBackend("x"), 503, "no_backend", "server_error"),
        (BalancerError("x"), 503, "no_backend", "server_error"),
        (BackendFailed("x"), 503, "no_backend", "server_error"),
        (BackendTimedOut("x"), 503, "no_backend", "server_error"),
        (BadAnswer("x"), 502, "bad_gateway", "server_error"),
        (NotLetIn("x"), 502, "bad_gateway", "server_error"),
        (NotAllowed("x"), 502, "bad_gateway", "server_error"),
        (LoopDetected("x"), 508, "loop_detected", "server_error"),
        (UpstreamNotAllowed("x"), 403, "upstream_not_allowed", "permission_error"),
        (TooManyUpstreams("x"), 409, "too_many_upstreams", "invalid_request_error"),
        (LOADING, 503, "model_loading", "server_error"),
        (InsufficientMemory("x"), 503, "insufficient_memory", "server_error"),
        (RestartFailed("x"), 503, "restart_failed", "server_error"),
        # What waiting does not mend.
        (NeverFits("x"), 400, "insufficient_memory", "invalid_request_error"),
        (CannotRestart("x"), 500, "restart_failed", "server_error"),
        (CannotServe("x", CannotLoad("y")), 400, "unsupported_feature", "invalid_request_error"),
        (CannotServe("x", BadModelFile("y")), 400, "invalid_request_error", "invalid_request_error"),
        (CannotServe("x", ModelFileNotFound("y")), 404, "model_not_found", "invalid_request_error"),
        (CannotServe("x", NeverFits("y")), 400, "insufficient_memory", "invalid_request_error"),
        (HTTPException(403), 403, "insufficient_scope", "permission_error"),
        (HTTPException(418), 418, "invalid_request_error", "invalid_request_error"),
        (HTTPException(599), 599, "internal_error", "server_error"),
        (ZeroDivisionError("x"), 500, "internal_error", "server_error"),
    ],
)
def test_each_exception_has_its_status_and_code(exc: Exception, status: int, code: str, kind: str) -> None:
    err = to_api_error(exc)
    assert (err.status, err.code, err.type) == (status, code, kind)


def test_what_is_permanent_is_never_503() -> None:
    """Waiting does not mend it, and client libraries would ask again and again."""
    permanent = [each for each in subclasses(EngineError) if each.is_permanent]
    assert {CannotLoad, BadModelFile, ModelFileNotFound, NeverFits} <= set(permanent)
    for kind in permanent:
        for exc in (kind("x"), CannotServe("x", kind("x"))):
            err = to_api_error(exc)
            assert err.status != 503
            assert err.retry_after is None


def test_the_message_and_param_of_our_errors_reach_the_client() -> None:
    err = to_api_error(RequestError("The stop string is empty.", "stop"))
    assert error_body(err) == {
        "error": {
            "message": "The stop string is empty.",
            "type": "invalid_request_error",
            "param": "stop",
            "code": "invalid_request_error",
        }
    }


def test_an_unknown_exception_keeps_its_details() -> None:
    assert "secret" not in to_api_error(RuntimeError("secret")).message


def test_an_api_error_stays_what_it_is() -> None:
    err = ApiError(409, "model_conflict", "Busy.")
    assert to_api_error(err) is err


def test_loading_says_how_far_it_is() -> None:
    body = error_body(to_api_error(LOADING))["error"]
    assert body["loading"] == {"state": "loading", "progress": 0.4, "eta_seconds": 2.2}
    assert error_response(to_api_error(LOADING), None).headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (None, None)]
)
def test_retry_after_is_rounded_up(seconds: float | None, header: str | None) -> None:
    response = error_response(ApiError(418, "teapot", "No.", retry_after=seconds), None)
    assert response.headers.get("retry-after") == header


@pytest.mark.parametrize("exc", [QueueFull("x"), NoBackend("x")])
def test_who_must_wait_is_always_told_how_long(exc: Exception) -> None:
    assert error_response(to_api_error(exc), None).headers["retry-after"] == "1"


def test_extra_and_headers_join_the_response() -> None:
    err = ApiError(400, "c", "m", "p", extra={"hint": 1}, headers={"X-Hint": "yes"})
    assert error_body(err)["error"]["hint"] == 1
    assert error_response(err, None).headers["x-hint"] == "yes"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "model", "Field required"),
        ({"model": 1}, "model", "valid string"),
        ({"model": "bad"}, "model", "must not be bad"),
        ({"model": "m", "temperature": 3}, "temperature", "less than or equal to 2"),
        ({"model": "m", "stop": 5}, "stop", "valid string, or: Input should be a valid list"),
        ({"model": "m", "messages": "x"}, "messages", "valid list"),
        ({"model": "m", "messages": [{"role": "x"}]}, "messages.0", "role"),
        ({"model": "m", "messages": [{"role": "user"}]}, "messages.0.content", "Field required"),
        (
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text",
            "Field required",
        ),
        (
            {
                "model": "m",
                "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": 3}]}],
            },
            "messages.0.content.0.image_url",
            "valid string",
        ),
        ([], None, "JSON object"),
    ],
)
async def test_a_wrong_body_is_400_and_names_the_field(
    client: httpx.AsyncClient, body: Any, param: str | None, words: str
) -> None:
    response = await client.post("/body", json=body)
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["code"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]
    assert "Value error" not in error["message"]
    assert error["message"].startswith(param or "The body")


@pytest.mark.parametrize("content", [b'{"model": ', b"\xff\xfe", b"nonsense"])
async def test_malformed_json_is_400(client: httpx.AsyncClient, content: bytes) -> None:
    response = await client.post("/body", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_request_error"
    assert response.json()["error"]["param"] is None


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}])
async def test_a_body_that_is_not_sent_as_json_says_so(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    response = await client.post("/body", content=b'{"model": "m"}', headers=headers)
    assert response.status_code == 400
    assert "Content-Type: application/json" in response.json()["error"]["message"]


async def test_no_body_at_all_is_400(client: httpx.AsyncClient) -> None:
    response = await client.post("/body")
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "A JSON body is required."


async def test_a_wrong_query_names_the_parameter(client: httpx.AsyncClient) -> None:
    response = await client.get("/query?limit=0")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "limit"


async def test_no_such_route_and_method_come_in_the_envelope(client: httpx.AsyncClient) -> None:
    missing = await client.get("/nowhere")
    wrong = await client.get("/body")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


async def test_what_a_route_raises_comes_in_the_envelope(client: httpx.AsyncClient, raiser: Raiser) -> None:
    raiser.error = UnknownModel("There is no model x.")
    response = await client.get("/fail")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "There is no model x."


async def test_an_unknown_failure_is_500_with_the_request_id(
    client: httpx.AsyncClient, raiser: Raiser
) -> None:
    raiser.error = ZeroDivisionError("secret")
    response = await client.get("/fail", headers={"x-request-id": "abc"})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert response.headers["x-request-id"] == "abc"
    assert "secret" not in response.text


async def test_an_engine_fault_is_logged_and_a_refusal_is_not(
    client: httpx.AsyncClient, raiser: Raiser
) -> None:
    with capture_logs() as lines:
        raiser.error = QueueFull("Full.")
        await client.get("/fail")
        raiser.error = EngineError("The engine died.")
        await client.get("/fail")
    (line,) = (each for each in lines if each["event"] != "http_request")
    assert (line["event"], line["log_level"]) == ("request_failed", "error")
    assert line["exc_info"] is raiser.error


def test_an_api_may_have_an_envelope_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def envelope(err: ApiError, request_id: str) -> tuple[int, dict[str, Any]]:
        return 529, {"told": err.message, "in": request_id}

    monkeypatch.setitem(error_responses._ENVELOPES, "/v1/other", envelope)
    scope = {"type": "http", "path": "/v1/other/x", "state": {"request_id": "r1"}}
    response = error_response(ApiError(503, "busy", "No."), scope)
    assert (response.status_code, json.loads(bytes(response.body))) == (529, {"told": "No.", "in": "r1"})
    response = error_response(ApiError(503, "busy", "No."), {**scope, "path": "/v1/models"})
    assert response.status_code == 503
