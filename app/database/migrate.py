"""Migration of a database to the tables that this version knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import sqlalchemy as sa

from app.database.address import Address
from app.database.errors import DatabaseUnavailable
from engines.machine.locks import locked

_FOLDER = Path(__file__).parent / "migrations"
# Any number, the same for all servers: PostgreSQL's locks of applications have numbers, not names.
_LOCK = 0x656E67696E65
# Seconds that a connection waits for another one's transaction.
BUSY_TIMEOUT = 10


def migrate(address: Address) -> None:
    """Bring the database at ``address`` up to date; makes it, where it is a file and there is none.

    One process at a time: the others wait, and find nothing to do. Raises `SQLAlchemyError`, `OSError` and
    `DatabaseUnavailable`.
    """
    if address.file is not None:
        address.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _one_process(address):
        engine = sa.create_engine(address.blocking_url, poolclass=sa.NullPool)
        try:
            with engine.connect() as connection:
                if address.file is not None:
                    _prepare_file(connection, address.file)
                _upgrade(connection)
        finally:
            engine.dispose()


def _one_process(address: Address) -> AbstractContextManager[None]:
    """PostgreSQL's lock is the transaction's."""
    return nullcontext() if address.file is None else locked(_lock_file(address.file), wait=True)


def _lock_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.lock")


def _prepare_file(connection: sa.Connection, file: Path) -> None:
    """In WAL mode, which the file remembers, readers and a writer do not wait for each other."""
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000}")
    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    connection.rollback()
    file.chmod(0o600)


def _upgrade(connection: sa.Connection) -> None:
    newest = max(_revisions())
    with _transaction(connection):
        present = _present(connection)
        if present == newest:
            return
        if present is not None and present > newest:
            raise DatabaseUnavailable(
                f"it was used by a newer version of this server (revision {present}, this one knows "
                f"{newest}): use that version, or another STATE_DIR or DATABASE_URL"
            )
        from alembic import command
        from alembic.config import Config

        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
        command.upgrade(config, "head")


@contextmanager
def _transaction(connection: sa.Connection) -> Iterator[None]:
    """All or nothing of what is done inside; one process at a time on PostgreSQL."""
    with connection.begin():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        else:
            # Python's driver begins a transaction at the first INSERT only, too late for tables.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield


def _present(connection: sa.Connection) -> str | None:
    """The revision of the database; None of an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return found


def _revisions() -> list[str]:
    """Those that there are. Asking Alembic would import it at every start."""
    return [path.name[1:5] for path in (_FOLDER / "versions").glob("r[0-9]*.py")]
