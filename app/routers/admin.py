"""The dependency of routes that only administrators may use."""

from __future__ import annotations

from fastapi import Depends, Request


def _require_admin(request: Request) -> None:
    if not request.state.admin:
        raise request.state.admin_refusal()


admin_only = Depends(_require_admin)
