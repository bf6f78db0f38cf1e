"""The dependency of routes that only administrators may use."""

from __future__ import annotations

from fastapi import Depends, Request

from app.errors import ApiError


def _require_admin(request: Request) -> None:
    if not request.state.admin:
        raise ApiError(
            403, "insufficient_scope", "Managing a server needs one of the keys in ADMIN_API_KEYS."
        )


admin_only = Depends(_require_admin)
