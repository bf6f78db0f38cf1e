"""*Try it out* in /docs: what it sends by itself is answered, on every route."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from app.main import create_app
from app.routers.examples import JSON
from app.settings import Settings
from support import gguf
from support import hub as stand_in

PULLED = "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF"
ENDLESS = "/v1/system/events"


@contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with stand_in.running() as hub:
        hub.repos[PULLED] = {"smollm2-360m-instruct-q8_0.gguf": gguf.header(gguf.LLAMA) + bytes(gguf.DATA)}
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """All of them; what takes something away comes last."""
    found = [
        (method.upper(), path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    return sorted(found, key=lambda each: each[0] == "DELETE")


async def kept(client: httpx.AsyncClient) -> dict[str, str]:
    """Ids of what whoever follows the examples has made before: a file, and a batch that takes its time."""

    async def upload(lines: int) -> str:
        body = {"model": "fake", "messages": [{"role": "user", "content": "Hello"}]}
        line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
        text = "\n".join(json.dumps({"custom_id": str(i), **line}) for i in range(lines))
        files = {"file": ("a.jsonl", text.encode())}
        made = await client.post("/v1/files", files=files, data={"purpose": "batch"})
        return str(made.json()["id"])

    wanted = {"input_file_id": await upload(2000), "endpoint": "/v1/chat/completions"}
    batch = (await client.post("/v1/batches", json=wanted)).json()["id"]
    return {"batch_id": batch, "file_id": await upload(1)}


async def test_every_example_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: dict[str, Any] = {"inference_engine": "fake", "model_base_path": tmp_path, "ollama_api": True}
    settings = Settings(_env_file=None, **chosen)
    app = create_app(settings)
    tried, refused = 0, {}
    transport = httpx.ASGITransport(app)
    with fake_hub(monkeypatch):
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            ids = await kept(client)
            for method, template, operation in operations((await client.get("/openapi.json")).json()):
                path = template
                for parameter in operation.get("parameters", ()):
                    if parameter["in"] == "path":
                        name, example = parameter["name"], parameter["example"]
                        path = path.replace(f"{{{name}}}", quote(ids.get(name, example), safe=""))
                bodies = [None]
                if "requestBody" in operation:
                    content = operation["requestBody"]["content"]
                    if JSON not in content:
                        continue  # a form has them in its schema; `kept` sends one
                    examples = content[JSON]["examples"]
                    bodies = [example["value"] for example in examples.values()]
                    assert bodies, f"{method} {path} has no example"
                for body in bodies:
                    tried += 1
                    if isinstance(body, dict) and "input_file_id" in body:
                        body = {**body, "input_file_id": ids["file_id"]}
                    asked = "HEAD" if path == ENDLESS else method
                    answer = await client.request(asked, path, json=body)
                    if "adapter" in template and answer.status_code in (400, 404):
                        continue  # this engine has none, and there is no such file
                    if "_id}" in template and answer.status_code == 404:
                        continue  # it shows what an id looks like
                    if not answer.is_success or "event: error" in answer.text:
                        refused[f"{method} {path} {body}"] = answer.text
    assert tried > 25
    assert refused == {}
