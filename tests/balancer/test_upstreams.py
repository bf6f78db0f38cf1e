"""The registry of upstreams."""

from __future__ import annotations

from typing import Any

from balancer.upstreams import Upstreams
from support.balancing import StubBackend


class Listing(StubBackend):
    """Stands in for an upstream with these models."""

    def __init__(self, name: str, *models: str) -> None:
        super().__init__(name)
        self.models = models
        self.life: list[str] = []

    def serves(self, model: str) -> bool:
        return model in self.models

    def start(self) -> None:
        self.life.append("started")

    def drain(self) -> None:
        self.life.append("drained")

    async def stop(self) -> None:
        self.life.append("stopped")


async def test_upstreams_are_found_by_name_and_by_model() -> None:
    upstreams = Upstreams()
    first: Any = Listing("one", "m", "n")
    second: Any = Listing("two", "n", "o")
    assert not upstreams
    for each in (first, second):
        upstreams.add(each)
    assert (list(upstreams), upstreams[1], upstreams[:1]) == ([first, second], second, [first])
    assert (upstreams.find("two"), upstreams.find("three")) == (second, None)
    assert (upstreams.serving("n"), upstreams.serving("x")) == ([first, second], [])
    assert upstreams.models() == ["m", "n", "o"]
    upstreams.remove(first)
    await upstreams.stop()
    assert (first.life, second.life) == (["started", "drained"], ["started", "stopped"])
