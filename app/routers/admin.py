"""What management routes share: who may use them, and how large their bodies are."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from app import json_body
from app.errors import ApiError

MAX_BODY_BYTES = 64 * 2**10


class BoundedRoute(APIRoute):
    """A route whose body is small: FastAPI parses it, and checks it, in one go."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def bounded(request: Request) -> Response:
            body = await request.body()
            if len(body) > MAX_BODY_BYTES:
                raise ApiError(413, "request_too_large", f"The body is larger than {MAX_BODY_BYTES} bytes.")
            json_body.check(body)
            return await handle(request)

        return bounded


def _require_admin(request: Request) -> None:
    refusal = getattr(request.state, "admin_refusal", None)
    if refusal is not None:
        raise refusal()


admin_only = Depends(_require_admin)
