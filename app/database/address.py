"""Addresses of databases: what DATABASE_URL may say, and what SQLAlchemy is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

FILE_NAME = "enginehouse.db"

_SQLITE = "sqlite"
_POSTGRES = frozenset({"postgres", "postgresql"})


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is: a file of SQLite's, or the URL of a PostgreSQL server."""

    file: Path | None = None
    url: str = ""

    @property
    def blocking_url(self) -> str:
        """For SQLAlchemy's ordinary engine."""
        return f"sqlite:///{self.file}" if self.file is not None else self.url

    @property
    def async_url(self) -> str:
        return f"sqlite+aiosqlite:///{self.file}" if self.file is not None else self.url

    def __str__(self) -> str:
        """For people: without the password."""
        if self.file is not None:
            return str(self.file)
        parts = urlsplit(self.url)
        return f"PostgreSQL at {parts.hostname or 'localhost'}{parts.path}"


def read_address(url: str, folder: Path) -> Address:
    """What ``url`` says; empty: a file in ``folder``. Raises `ValueError`."""
    if not url:
        return Address(file=folder / FILE_NAME)
    scheme, mark, rest = url.partition("://")
    kind = scheme.lower().partition("+")[0]
    if not mark or kind not in {_SQLITE, *_POSTGRES}:
        raise ValueError("must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE")
    if kind == _SQLITE:
        path = rest.removeprefix("/")
        if not path or ":memory:" in path or "?" in path:
            raise ValueError("must be sqlite:///PATH, the path of a file")
        return Address(file=Path(path))
    return Address(url=f"postgresql+psycopg://{rest}")
