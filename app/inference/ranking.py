"""Reranking: the task that asks for scores of documents, and its run on an engine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from app.inference import capabilities
from app.inference.dialect import Execution
from app.inference.pieces import PiecesBody
from app.inference.task import BaseTask
from balancer.call import Reply
from engines.embeds import NO_CUT, Cut, Embeds, Pair, Scores
from engines.errors import ContextLengthExceeded

CAPABILITY = "rerank"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingTask(BaseTask):
    """A request for the relevance of each document to its query.

    ``field`` is what the request calls the documents. ``cut`` says whether one that is too long is cut; by
    default it is refused. Results are for the ``best`` documents only, None: for all, and repeat their texts
    if ``tell_texts``. ``raw``: scores as the model gives them; else they are between 0 and 1.
    """

    pairs: tuple[Pair, ...]
    field: str = "documents"
    cut: Cut = NO_CUT
    best: int | None = None
    tell_texts: bool = False
    raw: bool = False

    def conversation(self) -> str:
        return ""  # nothing of a text that is pooled stays in a cache


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document's place in the request, and how relevant it is."""

    index: int
    score: float


class RankingWriter(Protocol):
    """A shape of answers: the pieces of a document, each quickly made."""

    def pieces(
        self, task: RankingTask, ranked: Sequence[Ranked], prompt_tokens: int, answer_id: str
    ) -> Iterator[bytes]: ...


async def run(task: RankingTask, writer: RankingWriter, execution: Execution) -> Reply:
    """The reply of an engine of this process to ``task``. Cancelling it drops the pairs."""
    request, record = execution.request, execution.record
    capabilities.check({CAPABILITY: "model", **task.needs}, execution.resident.info)
    engine = cast(Embeds, execution.resident)
    try:
        scores = await engine.score(task.pairs, cut=task.cut, request_id=request.request_id)
    except ContextLengthExceeded as error:
        index = (error.param or "").rpartition(".")[2]
        raise error.told(f"{task.field}.{index}" if index.isdigit() else task.field, _help(task)) from None
    tokens = sum(scores.prompt_tokens)
    record.begin()
    record.prompt(tokens)
    pieces = writer.pieces(task, _ranked(task, scores), tokens, request.own_id)
    return Reply(200, [(b"content-type", b"application/json")], PiecesBody(pieces))


def _help(task: RankingTask) -> str:
    """The other way out for a document that is too long."""
    return ", or have it cut (`truncate`)" if task.field == "texts" else ", or have it cut (`max_tokens_per_doc`)"


def _ranked(task: RankingTask, scores: Scores) -> list[Ranked]:
    """Best first; of documents that are equally relevant, in the order in which they came."""
    values = scores.scores if task.raw else [sigmoid(score) for score in scores.scores]
    order = sorted(range(len(values)), key=lambda index: -scores.scores[index])
    return [Ranked(index, values[index]) for index in order[: task.best]]


def sigmoid(score: float) -> float:
    """``score``, a logit, as a probability."""
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    return (power := math.exp(score)) / (1.0 + power)
