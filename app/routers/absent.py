"""Routes that are not here: whose they are, and what to use instead."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import Match

from app.error_responses import error_response
from app.errors import ApiError
from app.paths import API

# Of a path that a client made up, as many characters are compared and told.
_MOST = 200
_CLOSE = 0.55
_CHAT = "use POST /v1/chat/completions"

_LATER = "is not served by this version"
_OLLAMA = (
    "this is Ollama's API, which OLLAMA_API=true switches on. OpenAI's is under /v1: "
    f"{_CHAT}, and GET /v1/models for a list"
)
_OLLAMA_ON = "of Ollama's API there is no such route"
_LLAMA_SERVER = f"this is an API of llama-server's own. This server has OpenAI's, under /v1: {_CHAT}"
_TGI = f"this is an API of text-generation-inference's own. This server has OpenAI's, under /v1: {_CHAT}"
_LM_STUDIO = f"this is an API of LM Studio's or KoboldCpp's own. This server has OpenAI's, under /v1: {_CHAT}"
_GEMINI = f"this is Gemini's API. This server has OpenAI's, under /v1: {_CHAT}"
_AZURE = f"of what Azure has, this server has OpenAI's API only: {_CHAT}"
_ASSISTANTS = f"OpenAI's Assistants API {_LATER}: {_CHAT}"
_EMBEDDINGS = "for embeddings use POST /v1/embeddings"
_CLASSES = "classes of texts are not served by this version"
_TUNING = "fine-tuning is not served by this version"

# By the first part of the path, below /v1, /v2 or nothing.
_OTHERS = {
    "api": _OLLAMA,
    "api/blobs": "models are pulled, not sent: use POST /api/pull, or put their files into MODEL_BASE_PATH",
    "api/copy": "a model gets another name by `aliases` in models.yaml",
    "api/create": "models are made of files in MODEL_BASE_PATH, and set up in models.yaml",
    "api/push": "models are not sent to registries",
    "api/v0": _LM_STUDIO,
    "api/v1": _LM_STUDIO,
    "api/extra": _LM_STUDIO,
    "assistants": _ASSISTANTS,
    "audio": "of OpenAI's Audio API there is POST /v1/audio/transcriptions, and no speech",
    "classify": _CLASSES,
    "complete": "Anthropic's Text Completions API is gone: use POST /v1/messages",
    "completion": _LLAMA_SERVER,
    "containers": f"OpenAI's Containers API {_LATER}",
    "conversations": f"OpenAI's Conversations API {_LATER}: {_CHAT}",
    "edits": f"OpenAI's Edits API is gone: {_CHAT}",
    "embed": _EMBEDDINGS,
    "embedding": _EMBEDDINGS,
    "embeddings": _EMBEDDINGS,
    "engines": f"OpenAI's Engines API is gone: {_CHAT}",
    "evals": f"OpenAI's Evals API {_LATER}",
    "fine-tunes": _TUNING,
    "fine_tuning": _TUNING,
    "generate": _TGI,
    "generate_stream": _TGI,
    "images": "making images is not served by this version",
    "info": _TGI,
    "invocations": f"this is SageMaker's API. This server has OpenAI's, under /v1: {_CHAT}",
    "lora-adapters": _LLAMA_SERVER,
    "messages": "of Anthropic's API there are POST /v1/messages and POST /v1/messages/count_tokens",
    "messages/batches": f"Anthropic's Message Batches API {_LATER}",
    "moderations": "moderation is not served by this version",
    "openai": _AZURE,
    "organization": "this server keeps no accounts",
    "pooling": _EMBEDDINGS,
    "props": _LLAMA_SERVER,
    "realtime": f"OpenAI's Realtime API {_LATER}: {_CHAT} with stream",
    "responses": "of OpenAI's Responses API there are POST /v1/responses and /v1/responses/input_tokens, "
    "GET and DELETE /v1/responses/{id}, and GET /v1/responses/{id}/input_items",
    "slots": _LLAMA_SERVER,
    "threads": _ASSISTANTS,
    "uploads": "uploads in parts are not served by this version: POST /v1/files takes whole files",
    "v1beta": _GEMINI,
    "vector_stores": f"OpenAI's Vector Stores API {_LATER}",
    "videos": "making videos is not served by this version",
}


def install(app: FastAPI) -> None:
    """Answer for ``app`` what none of its routes answers, and OPTIONS."""
    app.add_exception_handler(404, _no_route)
    app.add_exception_handler(405, _no_method)


async def _no_route(request: Request, exc: Exception) -> Response:
    path = request.url.path[:_MOST]
    is_on = request.app.state.server.settings.ollama_api
    says = _of_others(path, is_on) or _guess(request.app, path)
    message = f"There is no {request.method} {path} here: {says}. GET /docs lists what there is."
    return error_response(ApiError(404, "unsupported_endpoint", message), request.scope)


async def _no_method(request: Request, exc: Exception) -> Response:
    allowed = _allowed(request)
    headers = {"Allow": ", ".join(allowed)}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=headers)
    path, there = request.url.path[:_MOST], " or ".join(name for name in allowed if name != "OPTIONS")
    message = f"{request.method} is not allowed for {path}: use {there}."
    error = ApiError(405, "method_not_allowed", message, headers=headers)
    return error_response(error, request.scope)


def _of_others(path: str, has_ollama: bool) -> str | None:
    """What is said of a route that other servers have."""
    parts = path.strip("/").split("/")
    if parts[0] in ("v1", "v2"):
        parts = parts[1:]
    says = _OTHERS.get("/".join(parts[:2])) or _OTHERS.get(parts[0] if parts else "")
    if not parts or parts[0] != "api" or says == _LM_STUDIO:
        return says
    return (_OLLAMA_ON if says == _OLLAMA else says) if has_ollama else _OLLAMA


def _guess(app: FastAPI, path: str) -> str:
    routes = dict(_routes(app))
    close = get_close_matches(path, routes, n=1, cutoff=_CLOSE)
    if close:
        return f"perhaps you mean {routes[close[0]]} {close[0]}"
    return "OpenAI's API is under /v1: POST /v1/chat/completions, POST /v1/completions, GET /v1/models"


def _routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """The path of each route of the API, and how it is asked."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path.startswith(API):
            yield route.path, " or ".join(sorted(route.methods))


def _allowed(request: Request) -> list[str]:
    """The methods of all routes with this path; the router looks at the first one only."""
    methods = {"OPTIONS"}
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or {"GET"}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)
