"""The tables: what the migrations have made of the database. To change them, write the next migration.

Times are Unix seconds. ``number`` orders the rows as they came; clients know them by ``id``.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# SQLite counts up only what it knows as INTEGER.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

files = Table(
    "files",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Index("files_by_owner", "owner", "number"),
    Index("files_by_expiry", "expires_at"),
    sqlite_autoincrement=True,
)

batches = Table(
    "batches",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", Text, nullable=False),
    Column("completion_window", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("model", Text),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("total", Integer, nullable=False, default=0),
    Column("completed", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Column("usage", JSON),
    Column("errors", JSON),
    Column("metadata", JSON),
    Column("output_expires_after", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("in_progress_at", BigInteger),
    Column("finalizing_at", BigInteger),
    Column("completed_at", BigInteger),
    Column("failed_at", BigInteger),
    Column("expired_at", BigInteger),
    Column("cancelling_at", BigInteger),
    Column("cancelled_at", BigInteger),
    Index("batches_by_owner", "owner", "number"),
    sqlite_autoincrement=True,
)

responses = Table(
    "responses",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("owner", Text, nullable=False),
    Column("id", Text, nullable=False),
    # The response that it follows, and the items that it was asked with beyond those of that one.
    Column("previous", Text),
    Column("input", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    UniqueConstraint("owner", "id", name="responses_by_id"),
    Index("responses_by_use", "used_at"),
    sqlite_autoincrement=True,
)

jobs = Table(
    "jobs",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    # The folder for state that it works on.
    Column("place", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("state", Text, nullable=False),
    # What the kind needs to run it, and how far it is.
    Column("arguments", JSON, nullable=False),
    Column("progress", JSON),
    Column("error", Text),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    # The server that runs it.
    Column("runner", Text),
    Column("starts", Integer, nullable=False, default=0),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Index("jobs_by_state", "state", "number"),
    sqlite_autoincrement=True,
)
