"""Parser of reranking: a request's JSON, in one of its shapes, to a task."""

from __future__ import annotations

from typing import Any

from app.dialects.openai.rerank.schema import (
    Document,
    RerankRequest,
    ScoreRequest,
    TeiRequest,
)
from app.inference.dialect import Resolve
from app.inference.ranking import RankingTask
from app.schemas.unknown_fields import read_body
from engines.embeds import NO_CUT, Cut, Pair
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
            f"text_1 has {len(firsts)} texts and text_2 has {len(seconds)}: give one text_1 for all, or as many",
            param="text_1",
        )
    return RankingTask(
        target=resolve(body.model or "").target,
        pairs=tuple(map(Pair, firsts, seconds)),
        field="text_2",
        cut=_cut(body.truncate_prompt_tokens),
        priority=body.priority,
        keep_alive=body.keep_alive,
        unknown=unknown,
    )


def _of_cohere(document: Any, resolve: Resolve) -> RankingTask:
    body, unknown = read_body(RerankRequest, document)
    _refuse(body)
    texts = [each.text if isinstance(each, Document) else each for each in body.documents]
    return RankingTask(
        target=resolve(body.model or "").target,
        pairs=tuple(Pair(body.query, text) for text in texts),
        cut=_cut(body.truncate_prompt_tokens, body.max_tokens_per_doc),
        best=body.top_n,
        tell_texts=body.return_documents,
        priority=body.priority,
        keep_alive=body.keep_alive,
        unknown=unknown,
    )


def _of_tei(document: Any, resolve: Resolve) -> RankingTask:
    body, unknown = read_body(TeiRequest, document)
    at_start = body.truncation_direction.lower() == "left"
    return RankingTask(
        target=resolve(body.model or "").target,
        pairs=tuple(Pair(body.query, text) for text in body.texts),
        field="texts",
        cut=Cut(fits=True, at_start=at_start) if body.truncate else NO_CUT,
        tell_texts=body.return_text,
        raw=body.raw_scores,
        priority=body.priority,
        keep_alive=body.keep_alive,
        unknown=unknown,
    )


def _cut(pair: int | None, document: int | None = None) -> Cut:
    """``pair`` -1: as many tokens as the model takes."""
    return Cut(document=document, pair=None if pair is None or pair < 0 else pair, fits=pair == -1)


# Field to what it asks for; what is in the second place asks for nothing.
_REFUSED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "instruction": ("an instruction of the request's own", ("",)),
    "rank_fields": ("documents of several fields", ([], ["text"])),
    "return_embeddings": ("vectors beside the scores", (False,)),
}


def _refuse(body: RerankRequest) -> None:
    for name, (feature, neutral) in _REFUSED.items():
        value = getattr(body, name)
        if value is not None and value not in neutral:
            raise UnsupportedFeature(f"{feature} is not supported: leave `{name}` out", param=name)
