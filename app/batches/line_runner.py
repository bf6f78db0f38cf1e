"""Line runner: the answer to one request of a batch, however long it takes to get it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from app.batches.endpoints import ENDPOINTS
from app.batches.lines import BatchLine
from app.batches.pace import BatchPace, MadeWay
from app.errors import ApiError, error_body, to_api_error
from app.inference.intake import Intake
from app.inference.pipeline import Pipeline
from app.inference.response import AnswerObserver
from app.inference.wire_request import WireRequest
from app.telemetry.logs import get_logger
from balancer.call import BACKGROUND_PRIORITY

log = get_logger("batches")

# What another time may mend by itself is asked for until the batch's time is over; what is broken, so often.
_PASSING = frozenset({408, 429, 503, 504})
_BROKEN_TRIES = 3
# Seconds until a request is tried again: the first time, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

Expand = Callable[[str, WireRequest, Any], Awaitable[tuple[WireRequest, Any, AnswerObserver | None]]]
"""Puts what is stored for an owner into a request, and says who keeps its answer."""


@dataclass(frozen=True, slots=True)
class LineAnswer:
    """The answer to a request, as HTTP has it."""

    status: int
    request_id: str
    body: Any
    retry_after: float | None = None

    def document(self) -> dict[str, Any]:
        return {"status_code": self.status, "request_id": self.request_id, "body": self.body}


@dataclass(frozen=True, slots=True)
class Asker:
    """Whoever a batch is for, as `AuthMiddleware` told of them."""

    owner: str
    client: str
    admin: bool


class LineRunner:
    """Has requests answered at the lowest priority, in their turn. ``is_loaded``: whether a model is."""

    def __init__(
        self,
        pace: BatchPace,
        intake: Intake,
        pipeline: Pipeline,
        expand: Expand,
        is_loaded: Callable[[str], bool],
        *,
        pause: float = FIRST_PAUSE,
    ) -> None:
        self._pace = pace
        self._intake = intake
        self._pipeline = pipeline
        self._expand = expand
        self._is_loaded = is_loaded
        self._pause = pause

    async def run(self, path: str, line: BatchLine, asker: Asker) -> LineAnswer:
        """The answer to ``line`` of a batch for the endpoint ``path``. Cancelling it gives it up."""
        pause, broken = self._pause, 0
        while True:
            try:
                async with self._pace.turn(lambda: self._is_loaded(line.body["model"])) as turn:
                    answer = await turn.run(self._ask(path, line, asker))
            except MadeWay:
                continue
            if answer.status >= 500 and answer.status not in _PASSING:
                broken += 1
            if answer.status not in _PASSING and (answer.status < 500 or broken >= _BROKEN_TRIES):
                return answer
            log.debug("batch_line_again", custom_id=line.custom_id, status=answer.status)
            wait = max(pause, min(answer.retry_after or 0.0, LONGEST_PAUSE))
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _ask(self, path: str, line: BatchLine, asker: Asker) -> LineAnswer:
        request_id = f"req_{uuid4().hex}"
        try:
            status, body = await self._answer(path, line, asker, request_id)
            return LineAnswer(status, request_id, json.loads(body))
        except Exception as error:
            told = to_api_error(error)
            if told.status == 500 and not isinstance(error, ApiError):
                log.warning("batch_line_failed", request_id=request_id, exc_info=error)
            return LineAnswer(told.status, request_id, error_body(told), told.retry_after)

    async def _answer(self, path: str, line: BatchLine, asker: Asker, request_id: str) -> tuple[int, bytes]:
        endpoint, document, observer = ENDPOINTS[path], line.body, None
        wire = WireRequest(
            request_id=request_id,
            answer_id=uuid4().hex,
            path=path,
            body=json.dumps(document).encode(),
            headers=((b"content-type", b"application/json"),),
        )
        if endpoint.has_store:
            wire, document, observer = await self._expand(asker.owner, wire, document)
        inference, _ = self._intake.begin(
            endpoint.dialect,
            wire,
            document,
            client=asker.client,
            admin=asker.admin,
            priority=BACKGROUND_PRIORITY,
        )
        status, body = await self._pipeline.whole(inference)
        if observer is not None:
            observer.began(status, is_events=False)
            observer.saw(body)
            observer.ended()
        return status, body
