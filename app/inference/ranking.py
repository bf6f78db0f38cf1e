"""Reranking: the task that asks for scores of documents, and its run on an engine."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from app.inference import capabilities
from app.inference.dialect import Execution
from app.inference.pieces import PiecesBody
from app.inference.task import BaseTask
from balancer.call import Reply
from engines.base import Embeds, Pair, Scores
from engines.errors import ContextLengthExceeded
from engines.text.tokens.cutting import beginning

CAPABILITY = "rerank"

# Documents that are cut between two looks at other requests.
STEP = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingTask(BaseTask):
    """A request for the relevance of each document to its query.

    ``field`` is what the request calls the documents. Of a document ``most_of_each`` tokens count, and so
    many that with its query it has ``most``, where -1 is as many as the model takes; None refuses what is
    longer than that. Results are for the ``best`` documents only, None: for all, and repeat their texts if
    ``tell_texts``. ``raw``: scores as the model gives them; else they are between 0 and 1.
    """

    pairs: tuple[Pair, ...]
    field: str = "documents"
    most: int | None = None
    most_of_each: int | None = None
    best: int | None = None
    tell_texts: bool = False
    raw: bool = False

    def conversation(self) -> str:
        return ""  # nothing of a text that is pooled stays in a cache


@dataclass(frozen=True, slots=True)
class Ranking:
    """The answer to one task: places in the request and scores, best first, and the tokens of all pairs."""

    answer_id: str
    results: Sequence[tuple[int, float]]
    prompt_tokens: int


WriteRanking = Callable[[RankingTask, Ranking], Iterator[bytes]]
"""A dialect's way to write a ranking: the pieces of a document, each quickly made."""


async def run(task: RankingTask, write: WriteRanking, execution: Execution) -> Reply:
    """The reply of an engine of this process to ``task``. Cancelling it drops the pairs."""
    request, record, info = execution.request, execution.record, execution.resident.info
    capabilities.check({CAPABILITY: "model", **task.needs}, info)
    engine = cast(Embeds, execution.resident)
    pairs = task.pairs if task.most_of_each is None else await _cut(task.pairs, task.most_of_each, engine)
    most = task.most
    if most is not None:
        most = info.context_length if most < 0 else min(most, info.context_length)
    try:
        scores = await engine.score(pairs, most=most, request_id=request.request_id)
    except ContextLengthExceeded as error:
        if error.param == "query":  # which nobody cuts
            raise
        index = (error.param or "").rpartition(".")[2]
        raise error.told(f"{task.field}.{index}" if index.isdigit() else task.field, _HELP) from None
    tokens = sum(scores.prompt_tokens)
    record.begin()
    record.prompt(tokens)
    pieces = write(task, Ranking(request.own_id, _ranked(task, scores), tokens))
    return Reply(200, [(b"content-type", b"application/json")], PiecesBody(pieces))


_HELP = ", or have it cut (`truncate`, or `truncate_prompt_tokens`: -1)"
"""The other way out for a document that is too long."""


async def _cut(pairs: Sequence[Pair], most: int, engine: Embeds) -> list[Pair]:
    """The pairs with the beginnings of their documents that have ``most`` tokens."""
    found = []
    for index, pair in enumerate(pairs):
        if index % STEP == STEP - 1:
            await asyncio.sleep(0)
        found.append(Pair(pair.query, await beginning(pair.document, most, engine)))
    return found


def _ranked(task: RankingTask, scores: Scores) -> list[tuple[int, float]]:
    """Best first; what is equally relevant stays in its order."""
    logits = scores.scores
    order = sorted(range(len(logits)), key=lambda index: -logits[index])
    return [(index, logits[index] if task.raw else sigmoid(logits[index])) for index in order[: task.best]]


def sigmoid(score: float) -> float:
    """``score``, a logit, as a probability."""
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    power = math.exp(score)
    return power / (1.0 + power)
