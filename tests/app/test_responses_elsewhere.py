"""Responses that worker processes and upstreams make: kept and followed here, where their client is."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest
from openai import OpenAI

from support.server import live_server, wait_until


@pytest.fixture(scope="module")
def back(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a worker."""
    settings = {"inference_mode": "load_balance", "instance_kind": "process", "cluster_instances": 1}
    state = str(tmp_path_factory.mktemp("back"))
    with live_server(
        inference_engine="fake", auto_scaling=False, instance_port=18790, state_dir=state, **settings
    ) as server:
        yield server.url


@pytest.fixture(scope="module")
def front(back: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that has that one as an upstream."""
    state = str(tmp_path_factory.mktemp("front"))
    with live_server(
        inference_engine="fake", default_model="other", upstreams=f"{back}/v1", state_dir=state
    ) as server:
        models = f"{server.url}/v1/models"
        wait_until(lambda: "fake" in [each["id"] for each in httpx.get(models).json()["data"]])
        yield server.url


@pytest.mark.parametrize("place", ["back", "front"])
def test_a_response_from_elsewhere_can_be_followed(place: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(place)
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as sdk:
        first = sdk.responses.create(model="fake", input="I am Alice.")
        events = sdk.responses.create(
            model="fake", input="Who am I?", previous_response_id=first.id, stream=True
        )
        last = [*events][-1]
        assert last.type == "response.completed"
        # The fake engine says its prompt.
        assert last.response.output_text.count("Alice") == 2
        assert sdk.responses.retrieve(last.response.id) == last.response
        if place == "back":
            assert last.response.previous_response_id == first.id
        items = sdk.responses.input_items.list(last.response.id, order="asc").data
        assert [item.role for item in items] == ["user", "assistant", "user"]  # type: ignore[union-attr]
        counted = sdk.responses.input_tokens.count(
            model="fake", input="Who am I?", previous_response_id=first.id
        )
        assert last.response.usage is not None
        assert counted.input_tokens == last.response.usage.input_tokens


def test_an_upstream_is_not_asked_for_responses_of_others(back: str, front: str) -> None:
    """All clients of a server share its key there."""
    with OpenAI(base_url=f"{back}/v1", api_key="none") as sdk:
        made = sdk.responses.create(model="fake", input="I am Alice.")
    with OpenAI(base_url=f"{front}/v1", api_key="none") as sdk, pytest.raises(openai.NotFoundError):
        sdk.responses.create(model="fake", input="Who am I?", previous_response_id=made.id)
