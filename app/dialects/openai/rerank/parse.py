"""Parser of reranking: a request's JSON, in one of its shapes, to a task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.dialects.openai.rerank.schema import (
    Document,
    RankingFields,
    RerankRequest,
    ScoreRequest,
    TeiRequest,
)
from app.inference.dialect import Resolve
from app.inference.ranking import RankingTask
from app.schemas.unknown_fields import UnknownField, read_body
from engines.base import Pair
from engines.errors import RequestError, UnsupportedFeature


def parse(document: Any, resolve: Resolve) -> RankingTask:
    """Raises pydantic's `ValidationError`, or `EngineError` for what cannot be met."""
    is_tei = isinstance(document, dict) and "texts" in document and "documents" not in document
    return _of_tei(document, resolve) if is_tei else _of_cohere(document, resolve)


def parse_scores(document: Any, resolve: Resolve) -> RankingTask:
    """As `parse`, for vLLM's scores."""
    body, unknown = read_body(ScoreRequest, document)
    firsts = [body.text_1] if isinstance(body.text_1, str) else body.text_1
    seconds = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    if len(firsts) == 1:
        firsts = firsts * len(seconds)
    if len(firsts) != len(seconds):
        raise RequestError(
            f"text_1 has {len(firsts)} texts and text_2 {len(seconds)}: give one text_1 for all, or as many",
            param="text_1",
        )
    return _task(body, unknown, resolve, pairs=tuple(map(Pair, firsts, seconds)), field="text_2")


def _of_cohere(document: Any, resolve: Resolve) -> RankingTask:
    body, unknown = read_body(RerankRequest, document)
    for name, (feature, neutral) in _REFUSED.items():
        value = getattr(body, name)
        if value is not None and value not in neutral:
            raise UnsupportedFeature(f"{feature}: not supported, leave `{name}` out", param=name)
    texts = [each.text if isinstance(each, Document) else each for each in body.documents]
    return _task(
        body,
        unknown,
        resolve,
        pairs=tuple(Pair(body.query, text) for text in texts),
        most_of_each=body.max_tokens_per_doc,
        best=body.top_n,
        tell_texts=body.return_documents,
    )


def _of_tei(document: Any, resolve: Resolve) -> RankingTask:
    body, unknown = read_body(TeiRequest, document)
    if body.truncate and body.truncation_direction.lower() == "left":
        param = "truncation_direction"
        raise UnsupportedFeature(f"texts can be cut at their end only: `{param}` right", param=param)
    task = _task(
        body,
        unknown,
        resolve,
        pairs=tuple(Pair(body.query, text) for text in body.texts),
        field="texts",
        tell_texts=body.return_text,
        raw=body.raw_scores,
    )
    return replace(task, most=-1) if body.truncate and task.most is None else task


def _task(
    body: RankingFields, unknown: tuple[UnknownField, ...], resolve: Resolve, **fields: Any
) -> RankingTask:
    resolved = resolve(body.model, "rerank")
    resolved.check_purpose("rerank")
    return RankingTask(
        target=resolved.target,
        most=body.truncate_prompt_tokens,
        needs={} if resolved.target.adapter is None else {"adapters": "model"},
        priority=body.priority,
        keep_alive=body.keep_alive,
        unknown=unknown,
        **fields,
    )


# Field to what it asks for, and the values that ask for nothing.
_REFUSED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "instruction": ("an instruction of the request's own", ("",)),
    "rank_fields": ("documents of several fields", ([], ["text"])),
    "return_embeddings": ("vectors beside the scores", (False,)),
}
