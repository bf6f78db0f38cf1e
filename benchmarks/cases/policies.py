"""What a selection costs with each strategy: ``python -m benchmarks.cases.policies`` prints microseconds."""

from __future__ import annotations

import random
import time
from collections import deque
from dataclasses import dataclass
from statistics import median

from balancer.policies import Strategy, make_policy
from balancer.prefixes import prefix_blocks

BACKENDS = 100
CONVERSATIONS = 50
PROMPT_CHARS = 16_384  # about 4,000 tokens
REPEATS = 2000
BUSY = 300  # calls at once


@dataclass(slots=True)
class PlainBackend:
    """Plain attributes: what they would cost as properties is no part of the policy."""

    name: str
    weight: float
    ttft: float | None
    inflight: int = 0


def measure() -> dict[str, float]:
    """Median microseconds of a selection among 100 backends, by strategy."""
    return {strategy.value: _of(strategy) for strategy in Strategy}


def _of(strategy: Strategy) -> float:
    """Each call stays while the next ``BUSY`` are placed, so that the load moves as it does in service."""
    rng = random.Random(0)
    backends = [
        PlainBackend(f"instance_{i}", rng.choice((1.0, 2.0)), rng.uniform(0.05, 2.0)) for i in range(BACKENDS)
    ]
    prompts = _prompts(rng)
    policy = make_policy(strategy, rng)
    busy: deque[PlainBackend] = deque()
    seconds = []
    for i in range(REPEATS):
        prompt = prompts[i % CONVERSATIONS]
        started = time.perf_counter()
        chosen = policy.select(backends, prompt)
        seconds.append(time.perf_counter() - started)
        assert chosen is not None
        chosen.inflight += 1
        busy.append(chosen)
        if len(busy) > BUSY:
            busy.popleft().inflight -= 1
    return median(seconds) * 1e6


def _prompts(rng: random.Random) -> list[tuple[int, ...]]:
    """Conversations of one application: the first quarter of every prompt is the same."""
    common = "c" * (PROMPT_CHARS // 4)
    own = PROMPT_CHARS - len(common)
    return [prefix_blocks(common + f"{rng.random()} {'x' * own}") for _ in range(CONVERSATIONS)]


if __name__ == "__main__":
    for strategy, microseconds in measure().items():
        print(f"{strategy:18} {microseconds:6.1f} µs")
