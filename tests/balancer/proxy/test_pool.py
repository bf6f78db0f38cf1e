"""Which connections are kept."""

from __future__ import annotations

import pytest

from balancer.proxy import pool as pools
from balancer.proxy.client import ProxyClient
from balancer.proxy.connection import Connection
from balancer.proxy.pool import ConnectionPool
from balancer.proxy.route import Routes
from support.bad_upstream import answer, ask, bad_upstream, read


async def test_a_connection_that_was_lost_at_once_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ConnectionPool(connect_timeout=1.0)

    async def dial(*_: object) -> Connection:
        return Connection("gpu1", lambda connection: None)

    monkeypatch.setattr(pool, "_dial", dial)
    await pool.connect(Routes().to("http://gpu1:8000/v1"))
    assert not pool._open


async def test_a_connection_that_grew_old_is_replaced(
    patient: ProxyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bad_upstream(answer()) as upstream:
        await read(await ask(patient, upstream))
        monkeypatch.setattr(pools, "IDLE_SECONDS", -1.0)
        await read(await ask(patient, upstream))
        assert [request.connection for request in upstream.requests] == [1, 2]


async def test_only_so_many_are_kept(patient: ProxyClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_IDLE", 1)
    async with bad_upstream(answer()) as upstream:
        replies = [await ask(patient, upstream) for _ in range(3)]
        for reply in replies:
            await read(reply)
        for _ in range(2):
            await read(await ask(patient, upstream))
        assert [request.connection for request in upstream.requests] == [1, 2, 3, 1, 1]
