"""What a worker is sent."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from app.dialects.openai.wire import WIRE
from balancer.backends.worker import WorkerBackend
from balancer.call import Call, ResumePoint, Target
from balancer.instances import Instance, InstanceKind

BODY = {"model": "ALIAS", "messages": [{"content": "hi"}]}


class Proxy:
    def __init__(self) -> None:
        self.posts: list[tuple[str, bytes, ResumePoint | None]] = []
        self.request_ids: list[str] = []

    async def post_to_worker(
        self, url: str, headers: Any, body: bytes, *, resume_point: ResumePoint | None, **options: Any
    ) -> None:
        self.posts.append((url, body, resume_point))
        self.request_ids.append(options["request_id"])


def backend(proxy: Proxy) -> WorkerBackend:
    worker = SimpleNamespace(url="http://127.0.0.1:8001", key="secret")
    manager: Any = SimpleNamespace(resident=lambda key: worker)
    instance = Instance(0, "Model", "Model", InstanceKind.PROCESS)
    return WorkerBackend(manager, instance, 1.0, proxy)  # type: ignore[arg-type]


def call(target: Target, **fields: Any) -> Call:
    return Call("r", target, "/v1/chat/completions", json.dumps(BODY).encode(), wire=WIRE, **fields)


@pytest.mark.parametrize(
    ("target", "name"),
    [(Target("Model", None, "ALIAS"), "Model"), (Target("Model", "Pirate", "PIRATE"), "Model:Pirate")],
)
async def test_it_is_asked_for_the_canonical_name(target: Target, name: str) -> None:
    """It knows its one model by no other: by an alias it would look for another model."""
    proxy = Proxy()
    await backend(proxy).run(call(target, stream=True))
    [(url, body, _)] = proxy.posts
    assert url == "http://127.0.0.1:8001/v1/chat/completions"
    assert json.loads(body) == {**BODY, "model": name}


async def test_it_gets_the_fields_that_are_for_workers() -> None:
    proxy = Proxy()
    asked = call(
        Target("Model", None, "ALIAS"), stream=False, worker_fields={"previous_response_id": "resp_1"}
    )
    await backend(proxy).run(asked)
    assert json.loads(proxy.posts[0][1]) == {**BODY, "model": "Model", "previous_response_id": "resp_1"}
    assert b"previous_response_id" not in asked.body_for("Model")


async def test_it_goes_on_from_a_resume_point() -> None:
    proxy, point = Proxy(), ResumePoint((1, 2), 7)
    await backend(proxy).run(call(Target("Model", None, "Model"), stream=True), point)
    assert proxy.posts[0][2] == point


async def test_its_answer_has_the_calls_own_id() -> None:
    """So that another backend that goes on with it can give it the same, whatever id the client chose."""
    proxy, target = Proxy(), Target("Model", None, "Model")
    await backend(proxy).run(call(target, stream=True, answer_id="r-1"))
    await backend(proxy).run(call(target, stream=True))
    assert proxy.request_ids == ["r-1", "r"]


@pytest.mark.parametrize("asked", ["ALIAS", "Model"])
@pytest.mark.parametrize("said", [{}, {"top_k": None}, {"x": ["top_k"]}])
async def test_the_defaults_go_along(asked: str, said: dict[str, Any]) -> None:
    proxy, target = Proxy(), Target("Model", None, asked)
    for space in ("", "  \n"):
        sent = call(target, stream=False, defaults={"top_k": 3})
        sent.body = json.dumps({**BODY, "model": asked, **said}).replace("{", "{" + space, 1).encode()
        await backend(proxy).run(sent)
        assert json.loads(proxy.posts.pop()[1]) == {**BODY, "model": "Model", **said, "top_k": 3}
