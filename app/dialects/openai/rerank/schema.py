"""Schema of reranking: requests and answers, in the shapes that there are, told apart by their keys."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, Field

from app.dialects.openai.structure import check_text
from app.schemas.common import KeepAlive, WireModel

MAX_DOCUMENTS = 1000
"""Documents of one request: what Cohere and Jina advise at most."""
MAX_TOKENS = 2**31 - 1

Passage = Annotated[str, AfterValidator(check_text)]
Query = Annotated[Passage, Field(min_length=1)]
Passages = Annotated[list[Passage], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)]


class Document(WireModel):
    text: Passage


Documents = Annotated[
    list[Passage | Document], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)
]


class _Common(WireModel):
    """The fields that all shapes have."""

    model: str | None = Field(
        None,
        min_length=1,
        description="Unset: the only model here that reranks; where there are several, it must be given.",
    )
    priority: int = Field(0, ge=-(2**31), le=2**31 - 1, description="Lower is served first.")
    keep_alive: KeepAlive = None

    # They change nothing about the scores.
    user: Any = Field(None, description="Accepted and not used.")


class RerankRequest(_Common):
    """Jina's and Cohere's shape: the key is `documents`."""

    query: Query
    documents: Documents = Field(description="Texts, or objects with a `text`.")
    top_n: int | None = Field(None, ge=1, description="So many results, the best; unset: all.")
    return_documents: bool = Field(False, description="Repeat each document's text in its result.")
    max_tokens_per_doc: int | None = Field(
        None, ge=1, le=MAX_TOKENS, description="Cut longer documents. Unset: what does not fit is refused."
    )
    truncate_prompt_tokens: int | None = Field(
        None, ge=-1, le=MAX_TOKENS, description="Cut a document so that it has so many tokens with the query; -1: as many as fit."
    )
    # Refused unless they ask for nothing (see parse.py).
    return_embeddings: Any = None
    instruction: Any = None
    rank_fields: Any = None
    max_chunks_per_doc: Any = Field(None, description="Accepted and not used: documents are not split.")


class TeiRequest(_Common):
    """The shape of text-embeddings-inference: the key is `texts`."""

    query: Query
    texts: Passages
    raw_scores: bool = Field(False, description="Scores as the model gives them, not between 0 and 1.")
    return_text: bool = Field(False, description="Repeat each text in its result.")
    truncate: bool = Field(False, description="Cut a text that does not fit, instead of refusing it.")
    truncation_direction: Literal["left", "right", "Left", "Right"] = Field(
        "right", description="The end at which a text is cut."
    )


class ScoreRequest(_Common):
    """vLLM's shape: the keys are `text_1` and `text_2`, one against each or pair by pair."""

    text_1: Query | Annotated[list[Query], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)]
    text_2: Passage | Passages
    truncate_prompt_tokens: int | None = Field(
        None, ge=-1, le=MAX_TOKENS, description="As for reranking."
    )


class RankedDocument(BaseModel):
    text: str


class RankedResult(BaseModel):
    index: int = Field(description="The document's place in the request.")
    relevance_score: float = Field(description="0 to 1.")
    document: RankedDocument | None = None


class RerankUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Ranking(BaseModel):
    """The results, best first. For a request with `texts`: a list of `index`, `score` and perhaps `text`."""

    id: str
    object: Literal["list"]
    model: str
    results: list[RankedResult]
    usage: RerankUsage
    meta: dict[str, Any] = Field(description="Usage and version as Cohere's clients look for them.")
