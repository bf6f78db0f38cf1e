"""Writers of reranking, one for each shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from app.dialects.openai.events import now
from app.inference.ranking import Ranked, RankingTask
from app.sse import to_json


class CohereWriter:
    """``{"id", "model", "results", "usage", "meta"}``, as clients of Cohere, Jina and vLLM read it."""

    def pieces(
        self, task: RankingTask, ranked: Sequence[Ranked], prompt_tokens: int, answer_id: str
    ) -> Iterator[bytes]:
        head = {"id": f"rerank-{answer_id}", "object": "list", "model": task.target.name}
        usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
        tail = {
            "usage": usage,
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"search_units": 1, "total_tokens": prompt_tokens},
                "tokens": {"input_tokens": prompt_tokens, "output_tokens": 0},
            },
        }
        yield from _around(head, "results", (self._result(task, each) for each in ranked), tail)

    def _result(self, task: RankingTask, ranked: Ranked) -> dict[str, Any]:
        result: dict[str, Any] = {"index": ranked.index, "relevance_score": ranked.score}
        if task.tell_texts:
            result["document"] = {"text": task.pairs[ranked.index].document}
        return result


class TeiWriter:
    """A list of ``{"index", "score", "text"?}``, as text-embeddings-inference has it."""

    def pieces(
        self, task: RankingTask, ranked: Sequence[Ranked], prompt_tokens: int, answer_id: str
    ) -> Iterator[bytes]:
        yield b"["
        yield from _joined(self._result(task, each) for each in ranked)
        yield b"]"

    def _result(self, task: RankingTask, ranked: Ranked) -> dict[str, Any]:
        result: dict[str, Any] = {"index": ranked.index, "score": ranked.score}
        if task.tell_texts:
            result["text"] = task.pairs[ranked.index].document
        return result


class ScoreWriter:
    """``{"id", "data", "usage"}`` in the order of the request, as vLLM has it."""

    def pieces(
        self, task: RankingTask, ranked: Sequence[Ranked], prompt_tokens: int, answer_id: str
    ) -> Iterator[bytes]:
        head = {
            "id": f"score-{answer_id}",
            "object": "list",
            "created": now(),
            "model": task.target.name,
        }
        usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens, "completion_tokens": 0}
        in_order = sorted(ranked, key=lambda each: each.index)
        results = ({"index": each.index, "object": "score", "score": each.score} for each in in_order)
        yield from _around(head, "data", results, {"usage": usage})


def _around(
    head: dict[str, Any], name: str, results: Iterator[dict[str, Any]], tail: dict[str, Any]
) -> Iterator[bytes]:
    """The pieces of ``{**head, name: [*results], **tail}``."""
    yield to_json(head)[:-1] + b"," + to_json(name) + b":["
    yield from _joined(results)
    yield b"]," + to_json(tail)[1:]


def _joined(results: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    separator = b""
    for result in results:
        yield separator + to_json(result)
        separator = b","
