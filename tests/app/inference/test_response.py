"""The response to an inference request, over a dispatch that is stood in for."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

from app.dialects.openai.dialect import CHAT
from app.inference.pipeline import Inference
from app.inference.response import InferenceResponse
from balancer.call import ByteStream, Reply
from balancer.errors import BackendFailed, RequestKills
from support.balancing import Body, call


class LastTry:
    """A dispatch whose answer breaks off, and cannot go on."""

    backend = "a"

    async def open(self) -> tuple[Reply, bytes]:
        headers = [(b"content-type", b"text/event-stream")]
        return Reply(200, headers, Body(BackendFailed("the connection broke"))), b"data: {}\n\n"

    async def resume(self, failure: Exception) -> tuple[ByteStream, bytes]:
        raise RequestKills("3 instances failed while they computed it")

    def close(self) -> None:
        pass


async def test_a_stream_ends_with_the_reason_why_it_does_not_go_on() -> None:
    """Not with the break before it, of which nobody can tell that trying again is of no use."""
    sent: list[dict[str, Any]] = []
    dispatch = LastTry()
    inference = SimpleNamespace(
        dispatch=dispatch,
        call=call(),
        dialect=CHAT,
        for_parent=False,
        end=lambda *_: None,
        open=dispatch.open,
        close=lambda: None,
    )

    async def send(message: Any) -> None:
        sent.append(message)

    response = InferenceResponse(cast(Inference, inference))
    await response({"type": "http"}, asyncio.Event().wait, send)  # type: ignore[arg-type]
    error = json.loads(sent[-1]["body"].strip().removeprefix(b"data: "))["error"]
    assert (error["code"], error["message"]) == (
        "engine_error",
        "3 instances failed while they computed it",
    )
