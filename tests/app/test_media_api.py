"""Images and audio on the wire, with a fake engine that says which ones it was shown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from openai import OpenAI
from starlette.types import Receive, Scope, Send

from engines import media
from support.live import running, wait_until
from support.pictures import bomb, data_url, picture, sound
from support.server import LiveServer, live_server

CHAT = "/v1/chat/completions"
CATALOG = "models: [{name: able, engine: fake}]"
RED, BLUE, SOUND = picture("red"), picture("blue"), sound()
BASE64 = data_url(SOUND).partition(",")[2]
URL = "messages.0.content.0.image_url.url"


class Files:
    """A server with one picture. ``asked`` are the paths that were wanted."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        found = scope["path"] == "/red"
        start = {"type": "http.response.start", "status": 200 if found else 404, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": RED})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    base: Path = tmp_path_factory.mktemp("models")
    (base / "models.yaml").write_text(CATALOG)
    with live_server(
        model_base_path=base, default_model="able", media_urls="https,127.0.0.1/32", log_level="WARNING"
    ) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
    wait_until(lambda: server.house.media.memory.held == 0)


def word(data: bytes, kind: str = "image") -> str:
    """What the fake engine says of it."""
    reader = media.READERS["image" if kind == "image" else "audio"]
    return f"{kind}_{reader(data, None).key[:8]}"


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": url if isinstance(url, dict) else {"url": url}}


def ask(
    client: httpx.Client, *parts: dict[str, Any], model: str = "able", path: str = CHAT
) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": list(parts)}]}
    return client.post(path, json=body)


def content(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def test_parts_keep_their_order(client: httpx.Client) -> None:
    audio = {
        "type": "input_audio",
        "input_audio": {"data": BASE64, "format": "wav"},
    }
    shown = {"type": "image_url", "image_url": data_url(BLUE)}
    heard = {"type": "audio_url", "audio_url": {"url": data_url(SOUND)}}
    detail = image({"url": data_url(RED, "text/plain"), "detail": "low"})
    said = content(ask(client, text("a"), detail, text("b"), shown, audio, heard))
    names = [word(RED), word(BLUE), word(SOUND, "audio"), word(SOUND, "audio")]
    assert said == f"user: a {names[0]} b {names[1]}  {names[2]}  {names[3]} \n"


def test_by_openais_client(server: LiveServer) -> None:
    question: Any = [{"role": "user", "content": [text("What is "), image(data_url(RED))]}]
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as sdk:
        whole = sdk.chat.completions.create(model="able", messages=question)
        stream = sdk.chat.completions.create(model="able", messages=question, stream=True)
        said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert whole.choices[0].message.content == said == f"user: What is  {word(RED)} \n"


def test_they_count_as_prompt_tokens(client: httpx.Client) -> None:
    part = image(data_url(RED))
    usage = ask(client, part).json()["usage"]
    assert usage["prompt_tokens"] > ask(client, text("")).json()["usage"]["prompt_tokens"]
    counted = ask(client, part, path=f"{CHAT}/input_tokens").json()["input_tokens"]
    assert counted == usage["prompt_tokens"]
    assert len(ask(client, part, path=f"{CHAT}/render").json()["token_ids"]) == counted


@pytest.mark.parametrize(
    ("part", "told", "param"),
    [
        (image("https://10.0.0.1/a.png"), "nothing is fetched from 10.0.0.1", URL),
        (image("https://[::ffff:169.254.169.254]/"), "nothing is fetched from", URL),
        (image("https://2130706434/"), "nothing is fetched from", URL),
        (image("http://8.8.8.8/a.png"), "nothing is fetched from 8.8.8.8", URL),
        (image("file:///etc/passwd"), "is no address to fetch from", URL),
        (image("iVBORw0KGgo="), "is no address to fetch from", URL),
        (image("data:image/png"), "no comma", URL),
        (image("data:image/png;base64,"), "is empty", URL),
        (image("data:image/png;base64,a*b"), "no base64", URL),
        (image("data:image/svg+xml,<svg/>"), "SVG images are not drawn", URL),
        (image(data_url(b"hello")), "no image that can be read", URL),
        (image(data_url(SOUND, "image/png")), "no image that can be read", URL),
        (image(data_url(bomb(30_000, 30_000))), "pixels", URL),
        ({"type": "image_url"}, "needs `image_url`", "messages.0.content.0"),
        (
            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "mp3"}},
            "no audio that can be read",
            "messages.0.content.0.input_audio.data",
        ),
    ],
)
def test_what_cannot_be_taken(client: httpx.Client, part: dict[str, Any], told: str, param: str) -> None:
    begun = time.perf_counter()
    response = ask(client, part, text("?"))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_request_error", param)
    assert told in error["message"]
    assert time.perf_counter() - begun < 1


def test_ten_thousand_images(client: httpx.Client) -> None:
    """In one message as the schema allows it, and in many: refused at once, and nothing of it stays."""
    used = psutil.Process().memory_info().rss
    part = image(data_url(RED))
    messages = [{"role": "user", "content": [part] * 20}] * 500
    for many in ([{"role": "user", "content": [part] * 10_000}], messages):
        begun = time.perf_counter()
        response = client.post(CHAT, json={"model": "able", "messages": many})
        assert response.status_code == 400
        assert time.perf_counter() - begun < 1
    assert psutil.Process().memory_info().rss - used < 64 * 2**20


def test_forms_of_base64(client: httpx.Client) -> None:
    plain = data_url(RED)
    broken = "\r\n".join(plain[i : i + 60] for i in range(0, len(plain), 60))
    safe = plain.replace("+", "-").rstrip("=")
    quoted = plain.replace("+", "%2B").replace("=", "%3D").replace("/", "%2F")
    for url in (
        broken,
        safe,
        plain.split(",")[0] + "," + quoted.split(",")[1],
        plain.replace("data:", "DATA:"),
    ):
        assert word(RED) in content(ask(client, image(url)))


def test_from_a_url(client: httpx.Client) -> None:
    """What is there twice is fetched once."""
    files = Files()
    with running(files) as url:
        said = content(ask(client, image(f"{url}/red"), image(f"{url}/red"), image(data_url(BLUE))))
        assert said.split() == ["user:", word(RED), word(RED), word(BLUE)]
        error = ask(client, image(data_url(RED)), image(f"{url}/gone")).json()["error"]
        assert error["param"] == "messages.0.content.1.image_url.url"
        assert "status 404" in error["message"]
    assert files.asked == ["/red", "/gone"]
    assert "cannot be reached" in ask(client, image(f"{url}/red")).json()["error"]["message"]


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (image("https://8.8.8.8/never-asked"), URL),
        (
            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "mp3"}},
            "messages.0.content.0.input_audio.data",
        ),
    ],
)
def test_a_model_that_is_known_not_to_see(client: httpx.Client, part: dict[str, Any], param: str) -> None:
    """It is refused before anything is loaded or fetched."""
    response = ask(client, part, model="SmolLM2-135M-Instruct")
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "unsupported_feature", param)
    assert "such as able" in error["message"]
    assert client.get("/v1/models/SmolLM2-135M-Instruct").json()["state"] == "stopped"


def test_models_say_what_they_take(client: httpx.Client) -> None:
    cards = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    assert cards["able"]["input_modalities"] == ["text", "image", "audio"]
    assert cards["SmolLM2-135M-Instruct"]["input_modalities"] == ["text"]
    assert {"vision", "audio"} <= set(cards["able"]["capabilities"])


def test_text_alone_stays_text(client: httpx.Client) -> None:
    said = content(ask(client, text("a"), text("b")))
    assert said == "user: ab\n"
    assert json.loads(client.get("/openapi.json").text)
