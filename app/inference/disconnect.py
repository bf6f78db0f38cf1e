"""Work for one client, as long as that client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.types import Receive


async def while_connected(
    receive: Receive, work: Coroutine[Any, Any, None], release: Callable[[], None]
) -> None:
    """Run ``work`` until it ends or the client disconnects; what it raises is raised here.

    ``release`` is called synchronously either way: after an abort, uvicorn may never resume code that
    sits behind an ``await``.
    """
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
    finally:
        release()
        watch.cancel()
        if not task.done():
            task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
