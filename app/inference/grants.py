"""Grants: what requests of clients that may not manage the server may still ask of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from app.inference.task import BaseTask
from app.inference.wire_request import WireRequest

T = TypeVar("T", bound=BaseTask)


@dataclass(frozen=True, slots=True)
class Grants:
    """The fields of such requests that count. ``priority`` is the most urgent one, so the lowest.

    A field beyond that is ignored, as `IgnoredFields` tells. It is no error: some client libraries send
    `keep_alive` with every request.
    """

    keep_alive: bool = False
    priority: int = 0

    def ignored(self, document: Any) -> tuple[str, ...]:
        """The fields of a request's JSON that do not count."""
        if not isinstance(document, Mapping):
            return ()
        priority = document.get("priority")
        fields = {
            "keep_alive": document.get("keep_alive") is not None and not self.keep_alive,
            "priority": isinstance(priority, int | float) and priority < self.priority,
        }
        return tuple(name for name, beyond in fields.items() if beyond)

    def limit_task(self, task: T) -> T:
        """The task with what counts of it: also the default priority is not to be more urgent than may be."""
        if task.keep_alive is None and task.priority >= self.priority:
            return task
        keep_alive = task.keep_alive if self.keep_alive else None
        return replace(task, keep_alive=keep_alive, priority=max(task.priority, self.priority))

    def limit_wire(self, request: WireRequest, document: Mapping[str, Any]) -> WireRequest:
        """The request without the fields that do not count: an upstream would grant them to this server."""
        ignored = self.ignored(document)
        left = {name: value for name, value in document.items() if name not in ignored}
        if "priority" in ignored:
            left["priority"] = self.priority
        return replace(request, body=json.dumps(left).encode())
