"""Failures of the database, in words that need no SQLAlchemy."""

from __future__ import annotations


class DatabaseUnavailable(Exception):
    """The database cannot be used now: locked, broken, on a full disk, out of reach, or without a driver."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
