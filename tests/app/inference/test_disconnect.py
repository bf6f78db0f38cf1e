"""Work that ends with its client's connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from app.inference.disconnect import while_connected


class Client:
    """Sends nothing until it leaves, or breaks."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Message | Exception] = asyncio.Queue()

    async def receive(self) -> Message:
        message = await self.messages.get()
        if isinstance(message, Exception):
            raise message
        return message

    def leave(self) -> None:
        self.messages.put_nowait({"type": "http.disconnect"})


class Work:
    """Notes in ``told`` what becomes of it; ends when ``go`` is set."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.go = asyncio.Event()

    async def run(self) -> None:
        try:
            await self.go.wait()
            self.told.append("done")
        except asyncio.CancelledError:
            self.told.append("cancelled")
            raise

    def release(self) -> None:
        self.told.append("released")


def watched(client: Client, work: Work) -> asyncio.Task[None]:
    return asyncio.create_task(while_connected(client.receive, work.run(), work.release))


async def begun(task: asyncio.Task[Any]) -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()


async def test_work_ends_by_itself() -> None:
    client, work = Client(), Work()
    task = watched(client, work)
    await begun(task)
    work.go.set()
    await task
    assert work.told == ["done", "released"]
    client.leave()
    await asyncio.sleep(0)
    assert work.told == ["done", "released"], "somebody still watched"


async def test_what_work_raises_comes_out() -> None:
    async def fail() -> None:
        raise ValueError("bad luck")

    work = Work()
    with pytest.raises(ValueError, match="bad luck"):
        await while_connected(Client().receive, fail(), work.release)
    assert work.told == ["released"]


async def test_a_client_that_leaves_releases_before_anything_is_awaited() -> None:
    client, work = Client(), Work()
    task = watched(client, work)
    await begun(task)
    client.messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    await begun(task)
    client.leave()
    await task
    assert work.told[:2] == ["released", "cancelled"]
    assert not task.cancelled()
    assert task.cancelling() == 0, "what comes after it in this task would be cancelled"


async def test_a_body_that_cannot_be_received_ends_the_work() -> None:
    client, work = Client(), Work()
    task = watched(client, work)
    await begun(task)
    client.messages.put_nowait(RuntimeError("too long"))
    await task
    assert work.told[:2] == ["released", "cancelled"]


@pytest.mark.parametrize("has_left", [False, True])
async def test_a_server_that_cancels_is_obeyed(has_left: bool) -> None:
    client, work = Client(), Work()
    task = watched(client, work)
    await begun(task)
    if has_left:
        client.leave()
        await asyncio.sleep(0)
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "released" in work.told
