"""Log lines as workers write them."""

from __future__ import annotations

import json
from typing import Any


def line(event: str, level: str = "INFO", **data: Any) -> str:
    return json.dumps({"timestamp": "…", "level": level, "module": "inf", "event": event, "data": data})
