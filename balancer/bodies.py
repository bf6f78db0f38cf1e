"""Requests in JSON that are sent on with one field changed."""

from __future__ import annotations

import json


def with_field(body: bytes, name: str, value: object) -> bytes:
    """The JSON object in ``body`` with ``name`` set to ``value``."""
    wanted = json.loads(body)
    wanted[name] = value
    return json.dumps(wanted).encode()
