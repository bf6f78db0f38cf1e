"""The store of responses: bounded, each owner's own, and still there after a restart."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from app.database.address import Address, read_address
from app.database.database import Database
from app.errors import ApiError
from app.response_store.exchange import ResponseExchange
from app.response_store.kept import KeptResponses
from app.response_store.recent import RecentResponses
from app.response_store.record import StoredResponse
from app.response_store.store import ResponseStore
from support.clock import Clock

DAY = 86400.0
MANY = 100_000


def record(
    number: int, owner: str = "o", text: str = "x" * 200, previous: str | None = None
) -> StoredResponse:
    output = [{"type": "message", "role": "assistant", "id": f"msg_{number}_0", "content": text}]
    response = {"id": f"resp_{number}", "output": output}
    return StoredResponse(owner, f"resp_{number}", previous, b'"Hi"', json.dumps(response).encode())


def in_memory(
    count: int = 10, size: int = 2**20, age: float = DAY, clock: Clock | None = None
) -> ResponseStore:
    clock = clock or Clock(0.0)
    return ResponseStore(RecentResponses(count, size, age), None, lambda: clock.now)


async def ids(store: ResponseStore, *numbers: int) -> list[int]:
    """Those of ``numbers`` that are stored."""
    return [n for n in numbers if await store.find("o", f"resp_{n}") is not None]


async def test_the_one_that_nobody_used_for_longest_goes_first() -> None:
    store = in_memory(count=2)
    store.put(record(1))
    store.put(record(2))
    await store.get("o", "resp_1")
    store.put(record(3))
    assert await ids(store, 1, 2, 3) == [1, 3]


async def test_memory_and_age_are_bounded() -> None:
    clock = Clock(0.0)
    store = in_memory(size=3 * record(1).size, clock=clock)
    for number in range(1, 5):
        store.put(record(number))
    assert await ids(store, 1, 2, 3, 4) == [2, 3, 4]
    store.put(record(5, text="x" * 10_000))
    assert await ids(store, 2, 5) == [2]
    clock.now += DAY + 1
    assert await ids(store, 2, 3, 4) == []


async def test_many_responses_take_no_more_memory_than_they_may() -> None:
    recent = RecentResponses(MANY, 8 * 2**20, DAY)
    for number in range(MANY // 4):
        recent.put(record(number), 0.0)
    assert recent.bytes <= 8 * 2**20
    assert len(recent) < MANY // 4


async def test_others_see_nothing() -> None:
    store = in_memory()
    store.put(record(1))
    for ask in (
        store.get("p", "resp_1"),
        store.delete("p", "resp_1"),
        store.conversation("p", "resp_1", 10**6),
    ):
        with pytest.raises(ApiError) as error:
            await ask
        assert error.value.status == 404
    assert await ids(store, 1) == [1]


async def test_a_gap_in_a_conversation_is_named() -> None:
    store = in_memory()
    store.put(record(2, previous="resp_1"))
    with pytest.raises(ApiError, match="no response 'resp_1', which 'resp_2' follows") as error:
        await store.conversation("o", "resp_2", 10**6)
    assert (error.value.code, error.value.param) == ("previous_response_not_found", "previous_response_id")
    store.put(record(1))
    assert [each.id for each in await store.conversation("o", "resp_2", 10**6)] == ["resp_1", "resp_2"]
    with pytest.raises(ApiError, match="too long"):
        await store.conversation("o", "resp_2", 1000)


class Kept:
    """Stores on one file, of which only the database outlives each."""

    def __init__(self, folder: Path, count: int = 1000) -> None:
        self.address: Address = read_address("", folder)
        self.clock = Clock(1e9)
        self.count = count

    async def run(self, use: Any) -> Any:
        database = Database(self.address)
        kept = KeptResponses(database, self.count, DAY, 2**20, lambda seconds: asyncio.sleep(0))
        store = ResponseStore(RecentResponses(5, 2**20, DAY), kept, lambda: self.clock.now)
        try:
            return await use(store)
        finally:
            await store.close()
            await database.close()


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "state")


async def test_a_restart_loses_nothing(kept: Kept) -> None:
    async def fill(store: ResponseStore) -> None:
        assert await ids(store, 1) == []
        assert not kept.address.file.exists()  # type: ignore[union-attr]
        for number in range(1, 11):
            store.put(record(number, previous=f"resp_{number - 1}" if number > 1 else None))
        await store.delete("o", "resp_10")

    async def look(store: ResponseStore) -> None:
        assert await ids(store, *range(1, 12)) == [*range(1, 10)]
        assert await store.get("o", "resp_3") == record(3, previous="resp_2")
        assert len(await store.conversation("o", "resp_9", 10**6)) == 9
        assert await store.find("p", "resp_3") is None
        await store.delete("o", "resp_1")

    async def look_later(store: ResponseStore) -> None:
        kept.clock.now += DAY / 2
        assert await ids(store, 1, 2) == [2]
        kept.clock.now += DAY + 1
        assert await ids(store, 2, 9) == []

    await kept.run(fill)
    await kept.run(look)
    await kept.run(look_later)


async def test_the_database_is_bounded_too(kept: Kept) -> None:
    kept.count = 20

    async def fill(store: ResponseStore) -> None:
        for number in range(50):
            store.put(record(number))

    await kept.run(fill)
    found = await kept.run(lambda store: ids(store, *range(50)))
    assert found == [*range(30, 50)]


async def test_an_answer_is_kept_from_its_bytes_however_they_are_cut() -> None:
    response = {"id": "resp_7", "object": "response", "output": [], "status": "completed"}
    event = {"type": "response.completed", "response": response}
    stream = (
        b'event: response.output_text.delta\ndata: {"delta":"response.completed? \\n\\n"}\n\n'
        + b"event: response.completed\ndata: "
        + json.dumps(event).encode()
        + b"\n\ndata: [DONE]\n\n"
    )
    for size in (1, 7, 33, 1000):
        store = in_memory()
        keeper = ResponseExchange(store, "o", 10**6).keeper({"input": "Hi", "previous_response_id": "resp_6"})
        assert keeper is not None
        keeper.began(200, is_events=True)
        for begin in range(0, len(stream), size):
            keeper.saw(stream[begin : begin + size])
        assert await ids(store, 7) == []
        keeper.ended()
        found = await store.get("o", "resp_7")
        assert (json.loads(found.response), found.previous, found.input) == (response, "resp_6", b'"Hi"')


@pytest.mark.parametrize("status", [200, 500])
async def test_what_is_no_response_is_not_kept(status: int) -> None:
    store = in_memory()
    keeper = ResponseExchange(store, "o", 10**6).keeper({"input": "Hi"})
    assert keeper is not None
    keeper.began(status, is_events=False)
    keeper.saw(b'{"id": 7}' if status == 200 else json.dumps({"id": "resp_7"}).encode())
    keeper.ended()
    assert await ids(store, 7) == []
    assert ResponseExchange(store, "o", 1).keeper({"store": False}) is None
