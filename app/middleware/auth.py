"""Bearer keys for everything under /v1."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import ApiError, error_response
from app.middleware.credentials import bearer_token, client_network
from app.middleware.key_guesses import KeyGuesses
from app.middleware.paths import is_api


class AuthMiddleware:
    """401 without one of ``keys`` or ``admin_keys``; open where there are no ``keys``.

    ``everywhere``: not only under /v1. ``guesses`` limits wrong keys; by default, nothing does.

    ``scope["state"]["admin"]`` says whether the client may manage models: with one of ``admin_keys``, or
    anyone where there are none. To others ``scope["state"]["admin_refusal"]`` gives the error to raise.
    Who calls is in ``scope["state"]["client"]``: a short id of the key, or the client's address. It names
    the key in logs without giving it away.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Iterable[str] = (),
        admin_keys: Iterable[str] = (),
        *,
        everywhere: bool = False,
        guesses: KeyGuesses | None = None,
    ) -> None:
        self.app = app
        self._admins = frozenset(_digest(key.encode()) for key in admin_keys)
        users = frozenset(_digest(key.encode()) for key in keys)
        self._open = not users
        self._digests = tuple(users | self._admins)
        self._everywhere = everywhere
        self._guesses = guesses or KeyGuesses(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        network = client_network(scope)
        token = bearer_token(scope) if self._digests else None
        digest = self._known(token) if token else None
        if token and self._guesses.is_blocked(network, digest):
            digest = None
        elif digest is not None:
            self._guesses.right(network, digest)
        if not self._open and digest is None and self._guards(scope):
            refusal = self._refusal(network, token, 401)
            await error_response(refusal)(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["client"] = digest.hex()[:8] if digest else network
        state["admin"] = not self._admins or digest in self._admins
        if not state["admin"]:
            unknown = token if digest is None else None
            state["admin_refusal"] = partial(self._refusal, network, unknown, 403)
        await self.app(scope, receive, send)

    def _guards(self, scope: Scope) -> bool:
        # A preflight request carries no credentials.
        return self._everywhere or (is_api(scope) and scope["method"] != "OPTIONS")

    def _known(self, token: bytes) -> bytes | None:
        """The digest of ``token`` if it is a key. The time it takes tells nothing about the keys."""
        digest = _digest(token)
        known = False
        for each in self._digests:
            known |= hmac.compare_digest(digest, each)
        return digest if known else None

    def _refusal(self, network: str, token: bytes | None, status: int) -> ApiError:
        """What a client is told that sent ``token``, which is no key, if any."""
        if token:
            if self._guesses.is_blocked(network, None):
                return self._guesses.refusal(network)
            self._guesses.wrong(network)
        if status == 403:
            return ApiError(
                403, "insufficient_scope", "Managing a server needs one of the keys in ADMIN_API_KEYS."
            )
        if token:
            message = "This API key is not valid."
        else:
            message = "An API key is required. Send it as: Authorization: Bearer <key>"
        return ApiError(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
