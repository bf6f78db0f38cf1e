"""Pages of a list, as OpenAI's API has them: so many rows after the one with an id, by their age."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database.page_query import PageQuery
from app.errors import ApiError


async def page(
    connection: AsyncConnection, table: sa.Table, query: PageQuery, *conditions: sa.ColumnElement[bool]
) -> tuple[Sequence[sa.RowMapping], bool]:
    """The rows of ``table`` that meet the ``conditions``, and whether there are more behind them.

    Raises `ApiError` if none of them is called ``query.after``.
    """
    number: sa.Column[Any] = table.c.number
    statement = sa.select(table).where(*conditions)
    if query.after is not None:
        found = sa.select(number).where(table.c.id == query.after, *conditions)
        start = (await connection.execute(found)).scalar()
        if start is None:
            message = f"`after` is no id of this list: {query.after[:64]!r}."
            raise ApiError(400, "invalid_request_error", message, "after")
        statement = statement.where(number < start if query.order == "desc" else number > start)
    by_age = number.desc() if query.order == "desc" else number.asc()
    rows = (await connection.execute(statement.order_by(by_age).limit(query.limit + 1))).mappings().all()
    return rows[: query.limit], len(rows) > query.limit
