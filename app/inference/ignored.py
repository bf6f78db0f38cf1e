"""Ignored fields: those of a request that did not count, as its client and the log are told."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence

from app.errors import ApiError
from app.schemas.unknown_fields import UnknownField
from app.telemetry.logs import get_logger

log = get_logger("http")

HEADER = b"x-enginehouse-ignored"

# Clients that are remembered, and fields of each that are logged: of more clients the one that sent something
# longest ago is forgotten, more fields are made up.
MAX_CLIENTS = 1024
MAX_FIELDS = 32
# In one header.
MAX_NAMES = 16
MAX_NAME_LENGTH = 64
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


class IgnoredFields:
    """The memory of what was logged: one warning for each field that a client sends."""

    def __init__(self) -> None:
        self._logged: OrderedDict[str, set[str]] = OrderedDict()

    def tell(self, client: str, names: Sequence[str]) -> str:
        """The value of `HEADER` for a request of ``client`` in which the fields ``names`` do not count."""
        names = [_UNSAFE.sub("_", name)[:MAX_NAME_LENGTH] for name in names]
        self._log(client, names)
        more = [f"+{len(names) - MAX_NAMES}"] if len(names) > MAX_NAMES else []
        return ", ".join((*names[:MAX_NAMES], *more))

    def _log(self, client: str, names: Sequence[str]) -> None:
        logged = self._logged.setdefault(client, set())
        self._logged.move_to_end(client)
        if len(self._logged) > MAX_CLIENTS:
            self._logged.popitem(last=False)
        new = [name for name in names if name not in logged][: MAX_FIELDS - len(logged)]
        if new:
            logged.update(new)
            log.warning("fields_ignored", client=client, fields=new)


def refuse(unknown: Sequence[UnknownField]) -> None:
    """Raise `ApiError` if there are any: with STRICT_REQUESTS nothing is ignored."""
    if unknown:
        place = unknown[0].place
        message = f"{place}: there is no such field. Leave it out, or have STRICT_REQUESTS=false ignore it."
        raise ApiError(400, "invalid_request_error", message, place)
