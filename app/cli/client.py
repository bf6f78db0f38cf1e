"""A small client of the API for the command line: chats, pulls, models and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx

from app.answer_bytes import DONE, LineSplitter, error_message, event_data

TIMEOUT = httpx.Timeout(10.0, read=300.0)
"""Seconds. Reading waits long: a queue or a long prompt may come before the first token."""

_LOADED = frozenset({"ready", "loading"})
_COMING = frozenset({"loading", "stopped", "draining", "sleeping", "ready"})


class ServerError(Exception):
    """The server answered with an error; the message is its own. In a stream there is no ``status``."""

    def __init__(self, message: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def failure(body: bytes, status: int | None = None) -> ServerError:
    """The error that ``body`` tells of."""
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, LookupError, TypeError):
        code = None
    return ServerError(error_message(body, status), status, code)


def answer(reply: httpx.Response) -> Any:
    """The JSON of an answer. Raises `ServerError`."""
    if not reply.is_success:
        raise failure(reply.content, reply.status_code)
    try:
        return reply.json()
    except ValueError:
        raise ServerError(f"What answers at {reply.url} is no server of this kind") from None


def model_path(name: str) -> str:
    """The route of a model; its name may hold slashes."""
    return f"/v1/models/{quote(name)}"


def status_path(name: str) -> str:
    return f"{model_path(name)}/status"


def list_models(http: httpx.Client) -> list[dict[str, Any]]:
    """What GET /v1/models lists. Raises `ServerError`."""
    listed = answer(http.get("/v1/models"))
    try:
        return list(listed["data"])
    except (LookupError, TypeError):
        raise ServerError("The server lists no models") from None


def first_model(http: httpx.Client) -> str:
    """The first model of the server that is loaded, or else the first. Raises `ServerError`."""
    models = list_models(http)
    loaded = (model for model in models if model.get("state") in _LOADED)
    model = next(loaded, None) or next(iter(models), None)
    if model is None:
        raise ServerError("The server lists no model")
    return str(model["id"])


def is_coming(http: httpx.Client, name: str) -> bool:
    """Whether a model that is being loaded may be waited for: the server tells of it, and it did not fail."""
    reply = http.get(status_path(name))
    return reply.status_code == 200 and reply.json()["state"] in _COMING


def stream_chat(http: httpx.Client, request: dict[str, Any]) -> Iterator[str]:
    """Text of a streamed chat completion, piece by piece.

    Closing the iterator closes the connection, which makes the server stop. Raises `ServerError` for
    an error status, an error in the stream, and a stream that ends without ``[DONE]``.
    """
    for payload in _stream(http, "/v1/chat/completions", request):
        if payload == DONE:
            return
        yield from _text(payload)
    raise ServerError("The answer was cut off")


def stream_pull(http: httpx.Client, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Progress of a pull, event by event, and last its result. Closing the iterator leaves the pull.

    Raises `ServerError` for an error, and a stream that ends without a result.
    """
    for payload in _stream(http, "/v1/models/pull", request):
        event: dict[str, Any] = json.loads(payload)
        yield event
        if event["status"] == "success":
            return
    raise ServerError("The server broke the pull off: pull again to go on from there")


def _stream(http: httpx.Client, path: str, request: dict[str, Any]) -> Iterator[bytes]:
    """The payloads of an answer in server-sent events."""
    with http.stream("POST", path, json=request) as reply:
        if reply.status_code != 200:
            raise failure(reply.read(), reply.status_code)
        splitter = LineSplitter()
        for data in reply.iter_bytes():
            for line in splitter.feed(data):
                if payload := event_data(line):
                    if b'"error"' in payload and "error" in json.loads(payload):
                        raise failure(payload)
                    yield payload


def _text(payload: bytes) -> Iterator[str]:
    for choice in json.loads(payload).get("choices", ()):
        if text := choice.get("delta", {}).get("content"):
            yield text
