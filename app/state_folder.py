"""The folder of what this user's servers keep, where nobody names one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

_NAME = "enginehouse"


def default_state_folder(environment: Mapping[str, str]) -> Path:
    """The platform's place for it."""
    if place := environment.get("XDG_STATE_HOME"):
        return Path(place) / _NAME
    if sys.platform == "darwin":
        return _home() / "Library" / "Application Support" / _NAME
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or _home()) / _NAME
    return _home() / ".local" / "state" / _NAME


def _home() -> Path:
    """The user's own folder; the working folder of a user who has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return Path.cwd()
