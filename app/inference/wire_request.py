"""Wire request: an inference request as it came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from balancer.call import ResumePoint


@dataclass(frozen=True, slots=True)
class WireRequest:
    """A request as it came: what workers and upstreams are sent.

    Clients may choose ``request_id``; ``answer_id`` is then the answer's own. ``hops`` are the ids of the
    servers that it came through. ``for_parent``: it came from the server that started this one as a worker,
    whose stream has comments then; ``resume_point``: the point of an answer to go on from, which only a
    parent can give. ``worker_fields`` are fields of the body that workers get besides.
    """

    request_id: str
    path: str
    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()
    hops: Sequence[str] = ()
    for_parent: bool = False
    resume_point: ResumePoint | None = None
    answer_id: str = ""
    worker_fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def own_id(self) -> str:
        return self.answer_id or self.request_id
