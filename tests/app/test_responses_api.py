"""OpenAI's Responses API, by OpenAI's own client, with a fake engine that says what it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from pydantic import BaseModel

from engines.base import Engine
from engines.fake import FakeEngine
from engines.load_spec import LoadSpec
from engines.progress import Progress
from engines.registry import ENGINES
from support.marks import MarkReader
from support.server import LiveServer, live_server

ALL = ("chat", "completion", "tools", "reasoning", "structured")
PATH = "/v1/responses"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
CLOCK: Any = {"type": "function", "name": "get_time"}
PATCH: Any = {"type": "custom", "name": "apply_patch", "description": "Changes files."}


class Weather(BaseModel):
    city: str


async def load_fake(spec: LoadSpec, progress: Progress | None) -> Engine:
    return FakeEngine(spec.name, capabilities=ALL, make_reader=MarkReader)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    state: Path = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, "fake", replace(ENGINES["fake"], opener=lambda: load_fake))
        keys = frozenset({"one", "two"})
        with live_server(inference_engine="fake", state_dir=str(state), api_keys=keys) as server:
            yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer one"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def sdk(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="one", max_retries=0) as client:
        yield client


def says(server: LiveServer, answer: str) -> FakeEngine:
    found = server.engine()
    assert isinstance(found, FakeEngine)
    found.answer = answer
    return found


def events(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream, which must be as OpenAI's are."""
    answer = client.post(PATH, json={"stream": True, "input": "Hi", **fields})
    assert answer.status_code == 200, answer.text
    parts = [part for part in answer.text.split("\n\n") if part]
    assert parts.pop() == "data: [DONE]"
    found = []
    for part in parts:
        name, data = part.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    numbers = [event["sequence_number"] for event in found]
    assert numbers == [*range(len(found))]
    return found


def test_probe(server: LiveServer, sdk: OpenAI, client: httpx.Client) -> None:
    says(server, '~Hm.^Well. @get_weather${"city": "Paris"}@apply_patch${"input": "a\\n\\"b\\""}')
    for event in events(client, tools=[WEATHER, PATCH]):
        print(json.dumps(event)[:1000])
    print(sdk.responses.create(model="fake", input="Hi", tools=[WEATHER, PATCH]))
