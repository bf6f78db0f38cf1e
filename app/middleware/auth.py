"""Bearer keys for everything under /v1."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import ApiError, error_response
from app.middleware.paths import is_api


class AuthMiddleware:
    """401 without one of ``keys`` or ``admin_keys``; open where there are no ``keys``.

    ``scope["state"]["admin"]`` says whether the client may manage models: with one of ``admin_keys``, or
    anyone where there are none. Who calls is in ``scope["state"]["client"]``: a short id of the key, or
    the client's address. It names the key in logs without giving it away.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str] = (), admin_keys: Iterable[str] = ()) -> None:
        self.app = app
        self._admins = frozenset(_digest(key.encode()) for key in admin_keys)
        users = frozenset(_digest(key.encode()) for key in keys)
        self._open = not users
        self._digests = tuple(users | self._admins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        digest = self._known(_bearer(scope)) if self._digests else None
        # A preflight request carries no credentials.
        if not self._open and digest is None and is_api(scope) and scope["method"] != "OPTIONS":
            await error_response(_refusal(scope))(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["client"] = digest.hex()[:8] if digest else _address(scope)
        state["admin"] = not self._admins or digest in self._admins
        await self.app(scope, receive, send)

    def _known(self, token: bytes | None) -> bytes | None:
        """The digest of ``token`` if it is a key. The time it takes tells nothing about the keys."""
        digest = _digest(token or b"")
        known = False
        for each in self._digests:
            known |= hmac.compare_digest(digest, each)
        return digest if known else None


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _bearer(scope: Scope) -> bytes | None:
    """The token of the Authorization header; None without one, or in another scheme."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.strip().partition(b" ")
            return token.strip() if scheme.lower() == b"bearer" else None
    return None


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "unknown"


def _refusal(scope: Scope) -> ApiError:
    if _bearer(scope):
        message = "This API key is not valid."
    else:
        message = "An API key is required. Send it as: Authorization: Bearer <key>"
    return ApiError(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})
