"""A token meter that remembers what it was told."""

from __future__ import annotations

from engines.base import Usage


class Meter:
    """`balancer.call.TokenMeter`. ``usage`` is what the whole answer said of itself."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.prompt_tokens: int | None = None
        self.counted = 0
        self.usage: Usage | None = None

    def begin(self, generated: int = 0) -> None:
        self.begun.append(generated)

    def prompt(self, tokens: int) -> None:
        self.prompt_tokens = tokens

    def tokens(self, count: int) -> None:
        self.counted += count

    def overcounted(self, count: int) -> None:
        self.counted -= count

    def told(self, usage: Usage) -> None:
        self.usage = usage
