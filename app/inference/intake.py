"""Intake: the JSON of a request becomes an inference, for a client that waits or for a batch."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from app.errors import invalid_value
from app.inference.dialect import Dialect
from app.inference.grants import Grants
from app.inference.ignored import IgnoredFields, refuse
from app.inference.pipeline import Inference, Pipeline
from app.inference.targets import Resolved, Targets
from app.inference.wire_request import WireRequest
from app.schemas.unknown_fields import UnknownField
from balancer.call import spliced


class Intake:
    """Parses requests to tasks, or passes them on unread if only upstreams have their model: what is right or
    wrong with such a request is theirs to say. ``strict``: what does not count is refused."""

    def __init__(
        self,
        pipeline: Pipeline,
        targets: Targets,
        grants: Grants,
        ignored: IgnoredFields,
        default_model: str,
        *,
        strict: bool,
        is_worker: bool,
    ) -> None:
        self._pipeline = pipeline
        self._targets = targets
        self._grants = grants
        self._ignored = ignored
        self._default_model = default_model
        self._strict = strict
        self._is_worker = is_worker

    def begin(
        self,
        dialect: Dialect[Any],
        wire: WireRequest,
        document: Any,
        *,
        client: str,
        admin: bool,
        unknown: tuple[UnknownField, ...] = (),
        priority: int | None = None,
    ) -> tuple[Inference, str]:
        """The inference of a request, and its fields that do not count, as `IgnoredFields` tells them.

        ``client`` and ``admin`` are what `AuthMiddleware` says of who asks. ``priority`` counts instead of
        what the request says. Raises `ApiError` and `EngineError`.
        """
        beyond = () if admin else self._grants.ignored(document)
        if beyond:
            wire = self._grants.limit_wire(wire, document)
        if dialect.has_default_model:
            wire, document = _with_model(wire, document, self._default_model)
        foreign = self._foreign(document)
        if foreign is not None:
            told = self._ignored.tell(client, beyond) if beyond else ""
            return self._pipeline.relay(foreign, dialect, wire, document, priority or 0), told
        try:
            task = dialect.parse(document, self._targets.resolve)
        except ValidationError as error:
            raise invalid_value(error, document) from None
        if not admin:
            task = self._grants.limit_task(task)
        if priority is not None:
            task = replace(task, priority=priority)
        if unknown:
            task = replace(task, unknown=(*unknown, *task.unknown))
        if self._strict:
            refuse(task.unknown)
            task = replace(task, must_fit=True)
        names = (*beyond, *(field.name for field in task.unknown))
        # A worker's parent has told it.
        told = self._ignored.tell(client, names) if names and not self._is_worker else ""
        return self._pipeline.begin(task, dialect, wire), told

    def _foreign(self, document: Any) -> Resolved | None:
        """The target of a request for a model that only upstreams have."""
        name = document.get("model") if isinstance(document, dict) else None
        return self._targets.foreign(name) if isinstance(name, str) else None


def _with_model(wire: WireRequest, document: Any, default: str) -> tuple[WireRequest, Any]:
    """The request with the ``default`` model, if it names none: backends have other ones."""
    if not isinstance(document, dict) or document.get("model") is not None:
        return wire, document
    named = {"model": default}
    body = spliced(wire.body, named) or json.dumps({**document, **named}).encode()
    return replace(wire, body=body), {**document, **named}
