"""Schema of reranking: requests and answers, in the shapes that there are, told apart by their keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from app.dialects.openai.sampling import MAX_TOKENS, ServedFields
from app.dialects.openai.structure import check_text
from app.schemas.common import WireModel

MAX_DOCUMENTS = 1000
"""Documents of one request: what Cohere and Jina advise at most."""

Passage = Annotated[str, AfterValidator(check_text)]
Query = Annotated[str, Field(min_length=1), AfterValidator(check_text)]
Passages = Annotated[list[Passage], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)]


class Document(WireModel):
    text: Passage = Field(description="The document.")


Documents = Annotated[list[Passage | Document], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)]


class RankingFields(ServedFields):
    """The fields that all shapes have."""

    model: str = Field(
        "",
        description="Unset: the only model here that reranks; where there are several, it must be given.",
    )
    truncate_prompt_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | Literal[-1] | None = Field(
        None,
        description="Cut documents so that with the query they have so many tokens; -1: as many as the model "
        "takes. Unset: what is longer than that is refused.",
    )


class RerankRequest(RankingFields):
    """Jina's and Cohere's shape: the key is `documents`."""

    query: Query = Field(description="What the documents are to answer.")
    documents: Documents = Field(description="Texts, or objects with a `text`.")
    top_n: int | None = Field(None, ge=1, description="So many results, the best; unset: all.")
    return_documents: bool = Field(False, description="Repeat each document's text in its result.")
    max_tokens_per_doc: int | None = Field(
        None, ge=1, le=MAX_TOKENS, description="Cut each document after so many tokens."
    )
    # Refused unless they ask for nothing (see parse.py).
    return_embeddings: Any = Field(None, description="Refused where it asks for something.")
    instruction: Any = Field(None, description="Refused where it asks for something.")
    rank_fields: Any = Field(None, description="Refused where it asks for something.")
    max_chunks_per_doc: Any = Field(None, description="Accepted and not used: documents are not split.")


class TeiRequest(RankingFields):
    """The shape of text-embeddings-inference: the key is `texts`."""

    query: Query
    texts: Passages
    raw_scores: bool = Field(False, description="Scores as the model gives them, not between 0 and 1.")
    return_text: bool = Field(False, description="Repeat each text in its result.")
    truncate: bool = Field(False, description="As truncate_prompt_tokens -1.")
    truncation_direction: Literal["right", "Right", "left", "Left"] = Field(
        "right", description="Texts can be cut at their end (right) only."
    )


class ScoreRequest(RankingFields):
    """vLLM's shape: the keys are `text_1` and `text_2`, one against each or pair by pair."""

    text_1: Query | Annotated[list[Query], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)] = (
        Field(description="A text, or as many as in text_2.")
    )
    text_2: Passage | Passages = Field(description="Texts that are held against text_1.")


class RankedDocument(BaseModel):
    text: str


class RankedResult(BaseModel):
    index: int = Field(description="The document's place in the request.")
    relevance_score: float = Field(description="0 to 1.")
    document: RankedDocument | None = None


class RerankUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Reranked(BaseModel):
    """The results, best first. For a request with `texts`: a list of `index`, `score` and perhaps `text`."""

    id: str
    object: Literal["list"]
    model: str
    results: list[RankedResult]
    usage: RerankUsage
    meta: dict[str, Any] = Field(description="Usage and version where clients of Cohere look for them.")


class PairScore(BaseModel):
    index: int
    object: Literal["score"]
    score: float = Field(description="0 to 1.")


class ScoreList(BaseModel):
    """One score for each pair, in their order."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[PairScore]
    usage: RerankUsage
