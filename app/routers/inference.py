"""The inference routes, in every dialect."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.datastructures import State
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app import json_body
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
from app.errors import invalid_value
from app.inference.dialect import Dialect
from app.inference.ignored import refuse
from app.inference.response import InferenceResponse
from app.inference.wire_request import WireRequest
from app.schemas.common import ERROR_RESPONSES
from app.server import Server
from balancer.call import spliced
from balancer.proxy.hops import read_hops
from balancer.workers.protocol import PARENT_HEADER, RESUME_HEADER, read_resume_point
from engines.errors import RequestError


class _BareRoute(APIRoute):
    """A documented route with nothing between it and its function, which takes the request.

    FastAPI's exit stacks, solving of dependencies and a second layer that handles exceptions would be a
    tenth of what passing a request on costs, the layer again with each piece of a stream.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


router = APIRouter(tags=["Inference"], route_class=_BareRoute)

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

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream: true` as server-sent events ending with `data: [DONE]`",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


def _body(schema: type[BaseModel]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema.__name__}"}}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/v1/chat/completions",
    summary="Answer a conversation",
    response_model=ChatCompletion,
    responses={**ERROR_RESPONSES, **_STREAM},
    openapi_extra=_body(ChatCompletionRequest),
)
async def create_chat_completion(request: Request) -> Response:
    """Tools, reasoning, `response_format` and adapters need an engine that has them, else the answer is a
    400 that says which has. Calls of tools come in `tool_calls`, reasoning in `reasoning_content`."""
    return await serve(request, CHAT)


@router.post(
    "/v1/completions",
    summary="Continue a text",
    response_model=Completion,
    responses={**ERROR_RESPONSES, **_STREAM},
    openapi_extra=_body(CompletionRequest),
)
async def create_completion(request: Request) -> Response:
    return await serve(request, COMPLETIONS)


@router.post(
    "/v1/embeddings",
    summary="Turn texts into vectors",
    response_model=EmbeddingList,
    responses=ERROR_RESPONSES,
    openapi_extra=_body(EmbeddingRequest),
)
async def create_embeddings(request: Request) -> Response:
    """Needs an embedding model: GET /v1/models tells which models are. Up to 2,048 inputs at once."""
    return await serve(request, EMBEDDINGS)


@router.post(
    "/v1/rerank",
    summary="Sort documents by their relevance to a query",
    response_model=Reranked,
    responses=ERROR_RESPONSES,
    openapi_extra=_body(RerankRequest),
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
    openapi_extra=_body(ScoreRequest),
)
async def create_scores(request: Request) -> Response:
    """vLLM's shape of reranking, also as /score: one text against each of several, or pair by pair."""
    return await serve(request, SCORES)


@router.post(
    "/v1/chat/completions/render",
    summary="Show the prompt that a conversation becomes",
    response_model=RenderedChat,
    responses=ERROR_RESPONSES,
    openapi_extra=_body(ChatCompletionRequest),
)
async def render_chat_completion(request: Request) -> Response:
    """Of the same body as a chat completion; nothing is generated."""
    return await serve(request, RENDER)


@router.post(
    "/v1/chat/completions/input_tokens",
    summary="Count the tokens of the prompt that a conversation becomes",
    response_model=InputTokens,
    responses=ERROR_RESPONSES,
    openapi_extra=_body(ChatCompletionRequest),
)
async def count_input_tokens(request: Request) -> Response:
    """Of the same body as a chat completion: tools, reasoning settings and the model's template count."""
    return await serve(request, INPUT_TOKENS)


@router.post(
    "/v1/apply-template",
    summary="Show the text of the prompt that a conversation becomes",
    response_model=AppliedTemplate,
    responses=ERROR_RESPONSES,
    openapi_extra=_body(ChatCompletionRequest),
)
async def apply_template(request: Request) -> Response:
    """llama-server's form of /v1/chat/completions/render, also at /apply-template."""
    return await serve(request, APPLY_TEMPLATE)


@router.post(
    "/v1/tokenize",
    summary="Turn a text or a conversation into tokens",
    response_model=Tokenized,
    responses=ERROR_RESPONSES,
    openapi_extra=_body(TokenizeRequest),
)
async def tokenize(request: Request) -> Response:
    """Also at /tokenize. Requests may have vLLM's form or llama-server's; answers have the fields of both."""
    return await serve(request, TOKENIZE)


@router.post(
    "/v1/detokenize",
    summary="Turn tokens into text",
    response_model=Detokenized,
    responses=ERROR_RESPONSES,
    openapi_extra=_body(DetokenizeRequest),
)
async def detokenize(request: Request) -> Response:
    """Also at /detokenize."""
    return await serve(request, DETOKENIZE)


@router.post(
    "/v1/infill",
    summary="Fill in what stands between two texts",
    response_model=Infilled,
    responses=ERROR_RESPONSES,
    openapi_extra=_body(InfillRequest),
)
async def infill(request: Request) -> Response:
    """llama-server's form of a completion with `suffix`, also at /infill, for editors. It needs a model whose
    vocabulary has tokens for it: GET /v1/models tells which have (`fim`)."""
    return await serve(request, INFILL)


async def serve(request: Request, dialect: Dialect[Any]) -> Response:
    """The response to a request in ``dialect``: parsed to a task, or passed on unread if only upstreams have
    its model. What is right or wrong with such a request is theirs to say."""
    server: Server = request.app.state.server
    wire = await _wire_request(request, is_worker=server.is_worker)
    if json_body.is_small(wire.body):
        return _begin(server, dialect, wire, json_body.parse(wire.body), request.state)
    # One after the other: each is a few steps that hold the loop for a moment, which add up side by side.
    async with server.large_bodies:
        document = await json_body.parse_large(wire.body)
        return _begin(server, dialect, wire, document, request.state)


def _begin(
    server: Server, dialect: Dialect[Any], wire: WireRequest, document: Any, client: State
) -> Response:
    """``client`` is what `AuthMiddleware` says of it."""
    pipeline, grants, told = server.pipeline, server.grants, server.ignored
    beyond = () if client.admin else grants.ignored(document)
    if beyond:
        wire = grants.limit_wire(wire, document)
    if dialect.has_default_model:
        wire, document = _with_model(wire, document, server.default.name)
    name = document.get("model") if isinstance(document, dict) else None
    foreign = server.targets.foreign(name) if server.fleet.upstreams and isinstance(name, str) else None
    if foreign is not None:
        ignored = told.tell(client.client, beyond) if beyond else ""
        return InferenceResponse(pipeline.relay(foreign, dialect, wire, document), ignored)
    try:
        task = dialect.parse(document, server.targets.resolve)
    except ValidationError as error:
        raise invalid_value(error, document) from None
    if not client.admin:
        task = grants.limit_task(task)
    if server.settings.strict_requests:
        refuse(task.unknown)
        task = replace(task, must_fit=True)
    names = (*beyond, *(field.name for field in task.unknown))
    # A worker's parent has told it.
    ignored = told.tell(client.client, names) if names and not server.is_worker else ""
    return InferenceResponse(pipeline.begin(task, dialect, wire), ignored)


def _with_model(wire: WireRequest, document: Any, default: str) -> tuple[WireRequest, Any]:
    """The request with the ``default`` model, if it names none: backends have other ones."""
    if not isinstance(document, dict) or document.get("model") is not None:
        return wire, document
    named = {"model": default}
    body = spliced(wire.body, named) or json.dumps({**document, **named}).encode()
    return replace(wire, body=body), {**document, **named}


async def _wire_request(request: Request, *, is_worker: bool) -> WireRequest:
    """The request as it came. Only a worker's parent may ask for comments, or for an answer to go on."""
    body, headers = await request.body(), request.headers
    for_parent = is_worker and headers.get(PARENT_HEADER.decode()) == "1"
    resume_point = None
    if for_parent:
        try:
            resume_point, body = read_resume_point(headers.get(RESUME_HEADER.decode()), body)
        except ValueError as error:
            raise RequestError(str(error)) from None
    state = request.state
    return WireRequest(
        request_id=state.request_id,
        # All backends that an answer comes from give it the one id.
        answer_id=state.request_id if for_parent else state.answer_id,
        # The route's own: what the client wrote may have a line end at its end, or a proxy's prefix in front.
        path=request.scope["route"].path,
        body=body,
        headers=headers.raw,
        hops=read_hops(headers.raw),
        for_parent=for_parent,
        resume_point=resume_point,
    )
