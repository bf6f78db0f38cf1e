"""The routes of Ollama's API that a model answers (OLLAMA_API)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.datastructures import State
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.dialects.ollama.answers import AnswerPiece
from app.dialects.ollama.parse import OllamaParser, Unload
from app.dialects.ollama.schema import (
    OllamaChatAnswer,
    OllamaChatRequest,
    OllamaEmbedding,
    OllamaEmbeddings,
    OllamaEmbeddingsRequest,
    OllamaEmbedRequest,
    OllamaGenerateAnswer,
    OllamaGenerateRequest,
)
from app.dialects.ollama.timing import now
from app.inference.translation import Translated
from app.routers.serving import BareRoute, described_body, serve_translated
from app.schemas.ollama import OLLAMA_ERRORS
from app.server import Server
from app.sse import to_json
from engines.lifecycle.states import ModelState

router = APIRouter(tags=["Ollama"], route_class=BareRoute, responses=OLLAMA_ERRORS)

# The schemas of request bodies, for the API's documentation: the routes read the bodies themselves.
BODIES: tuple[type[BaseModel], ...] = (
    OllamaChatRequest,
    OllamaGenerateRequest,
    OllamaEmbedRequest,
    OllamaEmbeddingsRequest,
)

_LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; unless `stream` is false, one JSON object a line, the last with `done`",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    }
}

Parse = Callable[[OllamaParser, Any], Translated | Unload]


@router.post(
    "/api/chat",
    summary="Answer a conversation",
    response_model=OllamaChatAnswer,
    responses=_LINES,
    openapi_extra=described_body(OllamaChatRequest),
)
async def chat(request: Request) -> Response:
    """Streams by default. Calls of tools come whole, their arguments as objects."""
    return await _serve(request, OllamaParser.chat)


@router.post(
    "/api/generate",
    summary="Answer a prompt",
    response_model=OllamaGenerateAnswer,
    responses=_LINES,
    openapi_extra=described_body(OllamaGenerateRequest),
)
async def generate(request: Request) -> Response:
    """Streams by default. The prompt goes through the model's chat template, unless it is `raw`."""
    return await _serve(request, OllamaParser.generate)


@router.post(
    "/api/embed",
    summary="Turn texts into vectors",
    response_model=OllamaEmbeddings,
    openapi_extra=described_body(OllamaEmbedRequest),
)
async def embed(request: Request) -> Response:
    return await _serve(request, OllamaParser.embed)


@router.post(
    "/api/embeddings",
    summary="Turn a text into a vector (older form)",
    response_model=OllamaEmbedding,
    openapi_extra=described_body(OllamaEmbeddingsRequest),
)
async def embeddings(request: Request) -> Response:
    return await _serve(request, OllamaParser.embeddings)


async def _serve(request: Request, parse: Parse) -> Response:
    server: Server = request.app.state.server
    parser = OllamaParser(server.targets.resolve, lambda name: _load_time(server, name))

    def translate(document: Any) -> Translated | Response:
        asked = parse(parser, document)
        return _Unloading(server, asked, request.state) if isinstance(asked, Unload) else asked

    return await serve_translated(request, translate)


def _load_time(server: Server, name: str) -> Callable[[], float]:
    """The way to learn how many seconds a request that comes now has waited for the model's load."""
    if server.manager.state(name) is ModelState.READY or server.library.get(name) is None:
        return lambda: 0.0
    return lambda: server.manager.status(name).load_seconds or 0.0


class _Unloading(Response):
    """The answer to who asked to unload a model, once it is."""

    def __init__(self, server: Server, asked: Unload, client: State) -> None:
        super().__init__(media_type="application/json")
        if not (client.admin or server.grants.keep_alive):
            raise client.admin_refusal()
        self._server = server
        self._model = server.library.find(asked.model)
        self._told = {"model": asked.asked, "created_at": now(), **asked.shape(AnswerPiece())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._server.unload(self._model, force=False)
        self.body = to_json({**self._told, "done": True, "done_reason": "unload"}) + b"\n"
        self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)
