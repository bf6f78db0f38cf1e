"""The inference routes of OpenAI's API, and of what is beside it in OpenAI's manner."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from app.dialects.llama_server.dialect import INFILL
from app.dialects.llama_server.schema import Infilled, InfillRequest
from app.dialects.openai.chat.schema import ChatCompletion, ChatCompletionRequest
from app.dialects.openai.completions.schema import Completion, CompletionRequest
from app.dialects.openai.dialect import CHAT, COMPLETIONS, EMBEDDINGS, RERANK, SCORES
from app.dialects.openai.embeddings.schema import EmbeddingList, EmbeddingRequest
from app.dialects.openai.rerank.schema import Reranked, RerankRequest, ScoreList, ScoreRequest
from app.dialects.openai.tokens.dialect import APPLY_TEMPLATE, DETOKENIZE, INPUT_TOKENS, RENDER, TOKENIZE
from app.dialects.openai.tokens.schema import (
    AppliedTemplate,
    Detokenized,
    DetokenizeRequest,
    InputTokens,
    RenderedChat,
    Tokenized,
    TokenizeRequest,
)
from app.routers.serving import BareRoute, described_body, event_stream, serve
from app.schemas.common import ERROR_RESPONSES

router = APIRouter(tags=["Inference"], route_class=BareRoute)

# The schemas of request bodies, for the API's documentation: the routes read the bodies themselves.
BODIES: tuple[type[BaseModel], ...] = (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
    RerankRequest,
    ScoreRequest,
    TokenizeRequest,
    DetokenizeRequest,
    InfillRequest,
)

_STREAM = event_stream("The answer; with `stream: true` as server-sent events ending with `data: [DONE]`")


@router.post(
    "/v1/chat/completions",
    summary="Answer a conversation",
    response_model=ChatCompletion,
    responses={**ERROR_RESPONSES, **_STREAM},
    openapi_extra=described_body(ChatCompletionRequest),
)
async def create_chat_completion(request: Request) -> Response:
    """Tools, reasoning, `response_format`, images, audio and adapters need an engine that has them, else
    the answer is a 400 that says which has. Calls of tools come in `tool_calls`, reasoning in
    `reasoning_content`."""
    return await serve(request, CHAT)


@router.post(
    "/v1/completions",
    summary="Continue a text",
    response_model=Completion,
    responses={**ERROR_RESPONSES, **_STREAM},
    openapi_extra=described_body(CompletionRequest),
)
async def create_completion(request: Request) -> Response:
    return await serve(request, COMPLETIONS)


@router.post(
    "/v1/embeddings",
    summary="Turn texts into vectors",
    response_model=EmbeddingList,
    responses=ERROR_RESPONSES,
    openapi_extra=described_body(EmbeddingRequest),
)
async def create_embeddings(request: Request) -> Response:
    """Needs an embedding model: GET /v1/models tells which models are. Up to 2,048 inputs at once."""
    return await serve(request, EMBEDDINGS)


@router.post(
    "/v1/rerank",
    summary="Sort documents by their relevance to a query",
    response_model=Reranked,
    responses=ERROR_RESPONSES,
    openapi_extra=described_body(RerankRequest),
)
async def create_rerank(request: Request) -> Response:
    """Needs a reranker: GET /v1/models tells which models are. Up to 1,000 documents at once. Also as
    /v2/rerank, /rerank and /reranking. With `texts` instead of `documents` request and answer are those of
    text-embeddings-inference: `query`, `texts`, `raw_scores`, `return_text`, `truncate`."""
    return await serve(request, RERANK)


@router.post(
    "/v1/score",
    summary="Tell how relevant texts are to others",
    response_model=ScoreList,
    responses=ERROR_RESPONSES,
    openapi_extra=described_body(ScoreRequest),
)
async def create_scores(request: Request) -> Response:
    """vLLM's shape of reranking, also as /score: one text against each of several, or pair by pair."""
    return await serve(request, SCORES)


@router.post(
    "/v1/chat/completions/render",
    summary="Show the prompt that a conversation becomes",
    response_model=RenderedChat,
    responses=ERROR_RESPONSES,
    openapi_extra=described_body(ChatCompletionRequest),
)
async def render_chat_completion(request: Request) -> Response:
    """Of the same body as a chat completion; nothing is generated."""
    return await serve(request, RENDER)


@router.post(
    "/v1/chat/completions/input_tokens",
    summary="Count the tokens of the prompt that a conversation becomes",
    response_model=InputTokens,
    responses=ERROR_RESPONSES,
    openapi_extra=described_body(ChatCompletionRequest),
)
async def count_input_tokens(request: Request) -> Response:
    """Of the same body as a chat completion: tools, reasoning settings and the model's template count."""
    return await serve(request, INPUT_TOKENS)


@router.post(
    "/v1/apply-template",
    summary="Show the text of the prompt that a conversation becomes",
    response_model=AppliedTemplate,
    responses=ERROR_RESPONSES,
    openapi_extra=described_body(ChatCompletionRequest),
)
async def apply_template(request: Request) -> Response:
    """llama-server's form of /v1/chat/completions/render, also at /apply-template."""
    return await serve(request, APPLY_TEMPLATE)


@router.post(
    "/v1/tokenize",
    summary="Turn a text or a conversation into tokens",
    response_model=Tokenized,
    responses=ERROR_RESPONSES,
    openapi_extra=described_body(TokenizeRequest),
)
async def tokenize(request: Request) -> Response:
    """Also at /tokenize. Requests may have vLLM's form or llama-server's; answers have the fields of both."""
    return await serve(request, TOKENIZE)


@router.post(
    "/v1/detokenize",
    summary="Turn tokens into text",
    response_model=Detokenized,
    responses=ERROR_RESPONSES,
    openapi_extra=described_body(DetokenizeRequest),
)
async def detokenize(request: Request) -> Response:
    """Also at /detokenize."""
    return await serve(request, DETOKENIZE)


@router.post(
    "/v1/infill",
    summary="Fill in what stands between two texts",
    response_model=Infilled,
    responses=ERROR_RESPONSES,
    openapi_extra=described_body(InfillRequest),
)
async def infill(request: Request) -> Response:
    """llama-server's form of a completion with `suffix`, also at /infill, for editors. It needs a model whose
    vocabulary has tokens for it: GET /v1/models tells which have (`fim`)."""
    return await serve(request, INFILL)
