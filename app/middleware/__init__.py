"""Middleware: the layers that every request passes before its route.

Pure ASGI: Starlette's BaseHTTPMiddleware would halve the throughput.

From the outside in:

1. request id: outermost, so that a refusal by any other one has an id too;
2. body limit: costs a look at a header and needs to know nobody;
3. auth: says who the client is;
4. rate limit: counts what the client sends.
"""

from __future__ import annotations

from fastapi import FastAPI

from app.middleware.auth import AuthMiddleware
from app.middleware.body_limit import BodyLimitMiddleware
from app.middleware.rate_limit import RateLimitMiddleware
from app.middleware.request_id import RequestIdMiddleware
from app.settings import Settings


def install(app: FastAPI, settings: Settings) -> None:
    """Put the middleware around ``app``. What is added last is outermost."""
    if settings.rate_limit_rpm:
        app.add_middleware(RateLimitMiddleware, rpm=settings.rate_limit_rpm)
    app.add_middleware(AuthMiddleware, keys=settings.api_keys, admin_keys=settings.admin_api_keys)
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_request_bytes)
    app.add_middleware(RequestIdMiddleware)
