"""Spelling of paths: the one of each that everything behind this sees."""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send

from app.paths import API, route_path

# Not behind a colon: an upstream's name may be an address.
_SLASHES = re.compile(r"(?<!:)//+")
_AGAIN = re.compile(r"^(?:/v1)+(?=/v1(?:/|$))")
# Routes of a client whose base URL lacks /v1, and those that other servers have beside it: the guards are to
# see them as well.
_BARE = re.compile(
    r"/(?:chat/completions|completions|messages|models|files|batches"
    r"|tokenize|detokenize|apply-template|infill)(?:/|$)"
)
# OpenAI's routes as Azure has them: the deployment is the model, which the body names too.
_AZURES = re.compile(r"^/openai(?:/v1|/deployments/[^/]+)(?=/)")
# Where other servers have routes that are elsewhere here.
_ELSEWHERE = {
    "/v1/health": "/health",
    **dict.fromkeys(("/rerank", "/v2/rerank", "/reranking", "/v1/reranking"), "/v1/rerank"),
    "/score": "/v1/score",
}


class PathMiddleware:
    """Gives a path that is only spelt otherwise the spelling of the routes.

    A redirect would do the same for GET, but clients lose the body of a POST on the way. Stands outside of
    the guards: they see the same path as the router.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked = route_path(scope)
            if (path := canonical(asked)) != asked:
                path = scope["path"].removesuffix(asked) + path
                scope = {**scope, "path": path, "raw_path": quote(path).encode()}
        await self.app(scope, receive, send)


def canonical(path: str) -> str:
    """``path`` as the routes spell it: no slash twice or at the end, and /v1 once in front."""
    if "//" in path:
        path = _SLASHES.sub("/", path)
    if path.endswith("/") and len(path) > 1:
        path = path[:-1]
    if path.startswith("/openai/"):
        path = _AZURES.sub(API, path)
    elif _BARE.match(path):
        path = API + path
    if path.startswith("/v1/v1"):
        path = _AGAIN.sub("", path)
    return _ELSEWHERE.get(path, path)
