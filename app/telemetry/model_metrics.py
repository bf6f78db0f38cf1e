"""The counts of one model's requests."""

from __future__ import annotations

from collections import Counter

from app.inference.outcome import Status
from app.telemetry.instruments import Histogram, RecentRate
from engines.base import Usage

TTFT_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 20, 40, 60)
ITL_BUCKETS = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04,
    0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5,
)  # fmt: skip
DURATION_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)


class ModelMetrics:
    """The counts of one model. Keep the object: its methods run for every token of every stream."""

    __slots__ = (
        "_rate", "cached_tokens", "completion_tokens", "durations",
        "itl", "model", "prompt_tokens", "requests", "ttft",
    )  # fmt: skip

    def __init__(self, model: str, rate: RecentRate) -> None:
        self.model = model
        self.requests: Counter[tuple[str, Status]] = Counter()
        self.durations: dict[str, Histogram] = {}
        self.ttft = Histogram(TTFT_BUCKETS)
        self.itl = Histogram(ITL_BUCKETS)
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cached_tokens = 0
        self._rate = rate

    def first_token(self, seconds: float, tokens: int = 1) -> None:
        """The first token came ``seconds`` after the request arrived, ``tokens`` of them at once."""
        self.ttft.observe(seconds)
        self._rate.add(tokens)

    def inter_token(self, seconds: float, tokens: int = 1) -> None:
        """``tokens`` came ``seconds`` after the last ones; at once, they share the time evenly."""
        if tokens > 0:
            self.itl.observe(seconds / tokens, tokens)
            self._rate.add(tokens)

    def untimed(self, tokens: int) -> None:
        """``tokens`` came, and nobody knows when."""
        self._rate.add(tokens)

    def finished(self, endpoint: str, outcome: Status, seconds: float, usage: Usage | None = None) -> None:
        """A request ended, ``seconds`` after it arrived.

        Only finished ones count for the duration: what was refused or broken off ends early and would
        make the server look fast.
        """
        self.requests[endpoint, outcome] += 1
        if outcome == "finished":
            self.durations.setdefault(endpoint, Histogram(DURATION_BUCKETS)).observe(seconds)
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens
            self.completion_tokens += usage.completion_tokens
            self.cached_tokens += usage.cached_tokens
