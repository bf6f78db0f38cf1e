"""Writers of reranking, one for each shape: documents in pieces, as they may repeat what they rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from app.dialects.openai.events import now
from app.inference.ranking import Ranking, RankingTask
from app.sse import to_json


def cohere_pieces(task: RankingTask, ranking: Ranking) -> Iterator[bytes]:
    """``{"id", "model", "results", "usage", "meta"}``, as clients of Cohere, Jina and vLLM read it."""

    def result(index: int, score: float) -> dict[str, Any]:
        told = {"document": {"text": task.pairs[index].document}} if task.tell_texts else {}
        return {"index": index, "relevance_score": score, **told}

    tokens = ranking.prompt_tokens
    head = {"id": f"rerank-{ranking.answer_id}", "object": "list", "model": task.target.name}
    meta = {
        "api_version": {"version": "2"},
        "billed_units": {"search_units": 1, "total_tokens": tokens},
        "tokens": {"input_tokens": tokens, "output_tokens": 0},
    }
    results = (result(*each) for each in ranking.results)
    return _around(head, "results", results, {"meta": meta, "usage": _usage(tokens)})


def tei_pieces(task: RankingTask, ranking: Ranking) -> Iterator[bytes]:
    """A list of ``{"index", "score", "text"?}``, as text-embeddings-inference has it."""

    def result(index: int, score: float) -> dict[str, Any]:
        told = {"text": task.pairs[index].document} if task.tell_texts else {}
        return {"index": index, "score": score, **told}

    yield b"["
    yield from _joined(result(*each) for each in ranking.results)
    yield b"]"


def score_pieces(task: RankingTask, ranking: Ranking) -> Iterator[bytes]:
    """``{"id", "data", "usage"}`` in the order of the request, as vLLM has it."""
    head = {
        "id": f"score-{ranking.answer_id}",
        "object": "list",
        "created": now(),
        "model": task.target.name,
    }
    results = (
        {"index": index, "object": "score", "score": score} for index, score in sorted(ranking.results)
    )
    return _around(head, "data", results, {"usage": _usage(ranking.prompt_tokens)})


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _around(
    head: Mapping[str, Any], name: str, results: Iterable[Mapping[str, Any]], tail: Mapping[str, Any]
) -> Iterator[bytes]:
    """The pieces of ``{**head, name: [*results], **tail}``."""
    yield to_json(head)[:-1] + b',"%b":[' % name.encode()
    yield from _joined(results)
    yield b"]," + to_json(tail)[1:]


def _joined(results: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    comma = b""
    for result in results:
        yield comma + to_json(result)
        comma = b","
