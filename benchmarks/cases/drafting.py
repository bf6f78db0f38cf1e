"""What guessing ahead gains: answers that copy their prompt, and ordinary ones, with drafts and without."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from app.cli.load import cpu_seconds, event_loop_factory
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.harness.servers import Bench, Need, subject
from benchmarks.load.client import ask_all, chat_body

CODE = '''class Account:
    """A bank account with an owner and a balance."""

    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance

    def deposit(self, amount):
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.balance += amount
        return self.balance

    def withdraw(self, amount):
        if amount > self.balance:
            raise ValueError("insufficient funds")
        self.balance -= amount
        return self.balance
'''
USERS = json.dumps(
    [
        {"id": 1, "name": "Ann Miller", "email": "ann@example.com", "roles": ["admin", "editor"]},
        {"id": 2, "name": "Bob Stone", "email": "bob@example.com", "roles": ["viewer"]},
        {"id": 3, "name": "Cara Lee", "email": "cara@example.com", "roles": ["editor", "viewer"]},
    ]
)
TEXT = (
    "The lighthouse on the northern cape was built in 1874 by a crew of forty men. It stood on a cliff of "
    "grey stone, and its lamp could be seen for thirty miles. In winter the keeper and his family were cut "
    "off from the village for weeks at a time, and they lived on salted fish, dried beans and bread that "
    "they baked themselves. The lamp was lit with oil until 1921, when a cable was laid from the mainland."
)
COPYING = (
    f"Repeat this text exactly, but change 1874 to 1880:\n\n{TEXT}",
    f"Add type hints to this code and print all of it:\n\n{CODE}",
    f"Change Bob Stone's email to stone@example.org and print the whole JSON again:\n\n{USERS}",
    f"Correct the spelling of this text and repeat it:\n\n{TEXT}",
)
ORDINARY = (
    "Write a short story about a sailor who is afraid of water.",
    "Explain how a bicycle stays upright.",
    "What are the main differences between Python and Java?",
    f"What does this code do?\n\n{CODE}",
)


@dataclass(frozen=True, slots=True)
class DraftingPlan:
    """Each of ``texts`` is asked in every round, as often as keeps ``connections`` busy."""

    texts: tuple[str, ...]
    connections: int = 1
    rounds: int = 3
    max_tokens: int = 160


WARM_UP = DraftingPlan(("Hi",), max_tokens=8)


@dataclass(frozen=True, slots=True)
class _Round:
    tokens_per_s: float
    cpu_per_token: float


def measure(bench: Bench, plan: DraftingPlan) -> dict[str, float]:
    """Two servers in turn, so that what else the machine does meets both. Raises `BenchError`."""
    with subject(bench, Need(env={"NGRAM_DRAFT": "7"})) as drafting, subject(bench, Need()) as plain:
        for server in (drafting, plain):
            _round(server, WARM_UP, 0)
        rounds = [(_round(drafting, plan, n), _round(plain, plan, n)) for n in range(1, plan.rounds + 1)]
        drafted, accepted = _figures(drafting)
    return {
        "tokens_per_s": statistics.median(ours.tokens_per_s for ours, _ in rounds),
        "plain_per_s": statistics.median(theirs.tokens_per_s for _, theirs in rounds),
        "draft_gain": statistics.median(ours.tokens_per_s / theirs.tokens_per_s for ours, theirs in rounds),
        "draft_cpu": statistics.median(ours.cpu_per_token / theirs.cpu_per_token for ours, theirs in rounds),
        "accepted_share": accepted / drafted if drafted else 0.0,
    }


def _round(server: BenchServer, plan: DraftingPlan, number: int) -> _Round:
    model = server.model()
    # Each begins in its own way, so that no prefix cache knows it.
    times = -(-plan.connections // len(plan.texts))
    texts = [f"Task {number}.{again}: {text}" for again in range(times) for text in plan.texts]
    bodies = [chat_body(model, text, plan.max_tokens) for text in texts]
    before, started = cpu_seconds(server.pid), time.perf_counter()
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        answers = runner.run(ask_all(server.url, bodies, plan.connections))
    seconds, cpu = time.perf_counter() - started, cpu_seconds(server.pid) - before
    if error := next((answer.error for answer in answers if answer.error), None):
        raise BenchError(error)
    tokens = sum(answer.completion_tokens for answer in answers)
    return _Round(tokens / seconds, cpu / tokens)


def _figures(server: BenchServer) -> Iterator[float]:
    """Tokens that were drafted, and those of them that came true."""
    lines = server.text("/metrics").splitlines()
    for name in ("draft", "accepted"):
        start = f"enginehouse_engine_{name}_tokens_total"
        yield next((float(line.split()[-1]) for line in lines if line.startswith(start)), 0.0)
