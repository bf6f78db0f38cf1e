"""Middleware: the layers that every request passes before its route.

Pure ASGI: Starlette's BaseHTTPMiddleware would halve the throughput.

From the outside in:

1. request id: outermost, so that a refusal by any other one has an id, and a line in the log, too;
2. path: its spelling is the routes' own for all that follow;
3. host, then origin: whether a browser is tricked into this request;
4. CORS: answers the browser's own questions;
5. body limit: costs a look at a header and needs to know nobody;
6. auth: says who the client is;
7. rate limit: counts what the client sends;
8. content encoding: nothing is decoded for who may not ask;
9. HEAD: becomes GET, as which the routes answer it.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.hosts import is_loopback
from app.middleware.auth import AuthMiddleware
from app.middleware.body_limit import BodyLimitMiddleware
from app.middleware.content_encoding import ContentEncodingMiddleware
from app.middleware.failures import FailureMiddleware
from app.middleware.head import HeadMiddleware
from app.middleware.host_check import HostCheckMiddleware
from app.middleware.key_guesses import KeyGuesses
from app.middleware.origin_check import OriginCheckMiddleware
from app.middleware.paths import PathMiddleware
from app.middleware.rate_limit import RateLimitMiddleware
from app.middleware.request_id import RequestIdMiddleware
from app.settings import Settings


def install(app: FastAPI, settings: Settings, *, is_worker: bool = False) -> None:
    """Put the middleware around ``app``. What is added last is outermost.

    A worker answers nobody without its key, not even a probe; its parent logs its requests.
    """
    app.add_middleware(HeadMiddleware)
    app.add_middleware(ContentEncodingMiddleware, max_bytes=settings.max_request_bytes)
    if settings.rate_limit_rpm:
        app.add_middleware(RateLimitMiddleware, rpm=settings.rate_limit_rpm)
    app.add_middleware(
        AuthMiddleware,
        keys=settings.api_keys,
        admin_keys=settings.admin_api_keys,
        everywhere=is_worker,
        local_admin=settings.manages_locally,
        own=settings.host,
        guesses=KeyGuesses(settings.rate_limit_wrong_keys),
    )
    app.add_middleware(
        BodyLimitMiddleware, max_bytes=settings.max_request_bytes, max_file_bytes=settings.max_file_bytes
    )
    if settings.cors_origins:
        app.add_middleware(FailureMiddleware)
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            allow_private_network=True,
            expose_headers=["*"],
        )
    app.add_middleware(OriginCheckMiddleware, allowed=settings.cors_origins)
    if settings.allowed_hosts or is_loopback(settings.host):
        app.add_middleware(HostCheckMiddleware, allowed=settings.allowed_hosts)
    app.add_middleware(PathMiddleware)
    app.add_middleware(RequestIdMiddleware, is_logged=not is_worker)
