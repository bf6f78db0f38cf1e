"""Wrong keys are limited by address, and nobody who has a right one is kept out."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from app import error_responses
from app.middleware.auth import AuthMiddleware
from app.middleware.key_guesses import KeyGuesses
from app.middleware.token_buckets import MAX_CLIENTS
from app.routers.admin import admin_only
from support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


class Guarded:
    """An app behind a limit of three wrong keys a minute."""

    def __init__(self, clock: Clock, keys: tuple[str, ...] = ("user",), admins: tuple[str, ...] = ()) -> None:
        self.app = FastAPI()
        error_responses.install(self.app)

        @self.app.get("/v1/admin", dependencies=[admin_only])
        async def administer() -> str:
            return "done"

        @self.app.get("/{path:path}")
        async def anything(request: Request) -> bool:
            return bool(request.state.admin)

        guesses = KeyGuesses(3, clock)
        self.app.add_middleware(AuthMiddleware, keys=keys, admin_keys=admins, guesses=guesses)

    async def get(self, key: str | None, path: str = "/v1/x", address: str = "10.0.0.7") -> httpx.Response:
        transport = httpx.ASGITransport(self.app, client=(address, 1))
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, headers=headers)

    async def statuses(self, *keys: str | None, **where: str) -> list[int]:
        return [(await self.get(key, **where)).status_code for key in keys]


async def test_who_guesses_is_not_told_any_more(clock: Clock) -> None:
    app = Guarded(clock)
    assert await app.statuses("a", "b", "c", "d", "user") == [401, 401, 401, 429, 429]
    refused = await app.get("e")
    assert refused.headers["retry-after"] == "20"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    clock.now += 20
    assert await app.statuses("user") == [200]
    assert await app.statuses("a", "b") == [401, 429]


async def test_others_are_not_kept_out(clock: Clock) -> None:
    app = Guarded(clock)
    assert await app.statuses("user") == [200]
    assert await app.statuses("a", "b", "c", "d") == [401, 401, 401, 429]
    assert await app.statuses("user") == [200], "it was right there before"
    assert await app.statuses("a", "user", address="10.0.0.8") == [401, 200]


async def test_probes_and_requests_without_a_key_are_no_guesses(clock: Clock) -> None:
    app = Guarded(clock)
    assert await app.statuses(*[None] * 5) == [401] * 5
    assert await app.statuses(*["wrong"] * 5, path="/healthz") == [200] * 5
    assert await app.statuses("user") == [200]


async def test_one_network_counts_as_one_client(clock: Clock) -> None:
    app = Guarded(clock)
    tried = [await app.statuses("wrong", address=f"2001:db8::{number}") for number in range(1, 5)]
    assert tried == [[401], [401], [401], [429]]
    assert await app.statuses("wrong", address="2001:db8:0:1::1") == [401]
    mapped = [await app.statuses("wrong", address=each) for each in ["10.1.1.1", "::ffff:10.1.1.1"] * 2]
    assert mapped == [[401], [401], [401], [429]]


async def test_keys_of_administrators_cannot_be_guessed_on_an_open_server(clock: Clock) -> None:
    app = Guarded(clock, keys=(), admins=("boss",))
    assert await app.statuses(*["unused"] * 5) == [200] * 5, "clients send any key where none is needed"
    assert await app.statuses("a", "b", "c", "d", "boss", path="/v1/admin") == [403, 403, 403, 429, 429]
    assert await app.statuses("unused") == [200]
    clock.now += 60
    assert await app.statuses("boss", path="/v1/admin") == [200]


async def test_a_users_key_is_no_guess_of_an_administrators(clock: Clock) -> None:
    app = Guarded(clock, admins=("boss",))
    assert await app.statuses(*["user"] * 5, path="/v1/admin") == [403] * 5


def test_the_memory_is_bounded(clock: Clock) -> None:
    guesses = KeyGuesses(3, clock)
    for number in range(MAX_CLIENTS + 10):
        guesses.right(str(number), b"digest")
        guesses.wrong(str(number))
    assert len(guesses._proven) == MAX_CLIENTS
    assert guesses._left is not None
    assert len(guesses._left) == MAX_CLIENTS


def test_without_a_limit_nothing_is_kept() -> None:
    guesses = KeyGuesses(0)
    guesses.right("a", b"digest")
    for _ in range(10):
        guesses.wrong("a")
    assert not guesses.is_blocked("a", None)
    assert not guesses._proven
