"""Keys for everything under /v1, and who may manage the server."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from app.error_responses import error_response
from app.errors import ApiError
from app.middleware.credentials import client_network, is_local, keys_of
from app.middleware.key_guesses import KeyGuesses
from app.paths import is_api


class AuthMiddleware:
    """401 without one of ``keys`` or ``admin_keys``; open where there are no ``keys``.

    ``everywhere``: not only under /v1. ``guesses`` limits wrong keys; by default, nothing does.

    ``scope["state"]["admin"]`` says whether the client has one of ``admin_keys``, or there are none. To who
    may not manage models, ``scope["state"]["admin_refusal"]`` gives the error to raise: all others, and with
    ``local_admin`` who is not on this machine, of which ``own`` is an address.
    Who calls is in ``scope["state"]["client"]``: a short id of the key, or the client's address. It names
    the key in logs without giving it away. ``scope["state"]["owner"]`` is what is kept for a client belongs
    to: the id of the key, and empty for who has none.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Iterable[str] = (),
        admin_keys: Iterable[str] = (),
        *,
        everywhere: bool = False,
        local_admin: bool = False,
        own: str = "",
        guesses: KeyGuesses | None = None,
    ) -> None:
        self.app = app
        self._admins = frozenset(_digest(key.encode()) for key in admin_keys)
        users = frozenset(_digest(key.encode()) for key in keys)
        self._open = not users
        self._digests = tuple(users | self._admins)
        self._everywhere = everywhere
        self._local_admin = local_admin
        self._own = own
        self._guesses = guesses or KeyGuesses(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        network = client_network(scope)
        keys = keys_of(scope) if self._digests else []
        digest = next((known for key in keys if (known := self._known(key)) is not None), None)
        if keys and self._guesses.is_blocked(network, digest):
            digest = None
        elif digest is not None:
            self._guesses.right(network, digest)
        wrong = keys if digest is None else []
        if not self._open and digest is None and self._guards(scope):
            await error_response(self._refusal(network, wrong, 401), scope)(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["client"] = digest.hex()[:8] if digest else network
        state["owner"] = digest.hex()[:32] if digest else ""
        state["admin"] = not self._admins or digest in self._admins
        if not state["admin"]:
            state["admin_refusal"] = partial(self._refusal, network, wrong, 403)
        elif self._local_admin and not is_local(scope, self._own):
            state["admin_refusal"] = _not_local
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

    def _refusal(self, network: str, wrong: Sequence[bytes], status: int) -> ApiError:
        """What a client is told that sent the keys ``wrong``, if any, which are none."""
        if wrong:
            if self._guesses.is_blocked(network, None):
                return self._guesses.refusal(network)
            for _ in wrong:
                self._guesses.wrong(network)
        if status == 403:
            return ApiError(
                403, "insufficient_scope", "Managing a server needs one of the keys in ADMIN_API_KEYS."
            )
        if wrong:
            message = "This API key is not valid."
        else:
            message = "An API key is required. Send it as Authorization: Bearer <key> or x-api-key: <key>"
        return ApiError(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})


def _not_local() -> ApiError:
    message = (
        "This server has no keys, so it is managed only from the machine that it runs on, by its address "
        "localhost and through no proxy. To manage it from elsewhere, set ADMIN_API_KEYS there and send one "
        "of them; OPEN_ADMIN=true lets everyone who reaches it."
    )
    return ApiError(403, "insufficient_scope", message)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
