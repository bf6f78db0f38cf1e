"""Transcriptions, by OpenAI's own client, with a fake engine that says what it was played."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI

from engines import media
from support.pictures import sound
from support.server import LiveServer, live_server

PATH = "/v1/audio/transcriptions"
SOUND = sound()


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(inference_engine="fake", log_level="WARNING") as server:
        yield server


@pytest.fixture
def sdk(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_by_openais_client(sdk: OpenAI) -> None:
    heard = f"audio_{media.audio(SOUND).key[:8]}"
    file = ("said.wav", SOUND)
    answer = sdk.audio.transcriptions.create(model="fake", file=file, language="en", prompt="Ada, Grace")
    asked = "Transcribe audio to text (language: en)\nThese words may be in it: Ada, Grace"
    assert answer.text == f"user:  {heard} {asked}"
    usage: Any = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 0
    options: Any = {"response_format": "text", "temperature": 0.5}
    text: Any = sdk.audio.transcriptions.create(model="fake", file=file, **options)
    assert text == f"user:  {heard} Transcribe audio to text\n"


@pytest.mark.parametrize(
    ("fields", "data", "code", "param"),
    [
        ({"response_format": "verbose_json"}, SOUND, "unsupported_feature", "response_format"),
        ({"response_format": "nonsense"}, SOUND, "invalid_request_error", "response_format"),
        ({"stream": "true"}, SOUND, "unsupported_feature", "stream"),
        ({"temperature": "hot"}, SOUND, "invalid_request_error", "temperature"),
        ({}, b"", "invalid_request_error", "file"),
        ({}, None, "invalid_request_error", "file"),
        ({}, b"no sound", "invalid_request_error", "file"),
        ({"model": "SmolLM2-135M-Instruct"}, SOUND, "unsupported_feature", "file"),
        ({"model": "no-such"}, SOUND, "model_not_found", None),
    ],
)
def test_what_cannot_be_met(
    server: LiveServer, fields: dict[str, str], data: bytes | None, code: str, param: str | None
) -> None:
    files = {"other": ("a", b"b")} if data is None else {"file": ("a.wav", data)}
    response = httpx.post(f"{server.url}{PATH}", data={"model": "fake", **fields}, files=files)
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert response.status_code == (404 if code == "model_not_found" else 400)


def test_a_body_that_is_no_form(server: LiveServer) -> None:
    for content, kind in (
        (b"{}", "application/json"),
        (b"--x\r\n", "multipart/form-data; boundary=y"),
        (b"", "multipart/form-data"),
    ):
        response = httpx.post(f"{server.url}{PATH}", content=content, headers={"content-type": kind})
        assert response.status_code == 400, response.text
        assert response.json()["error"]["type"] == "invalid_request_error"
