"""The ids of the servers that a request came through, as they stand in a header."""

from __future__ import annotations

import pytest

from balancer.proxy.client import ProxyClient
from balancer.proxy.hops import HOPS_HEADER, hops_header, new_server_id, read_hops
from support.bad_upstream import answer, ask, bad_upstream, read

A, B = "0123456789abcdef", "fedcba9876543210"


def test_what_is_written_is_read() -> None:
    assert read_hops([hops_header((), A)]) == (A,)
    assert read_hops([(b"accept", b"x"), hops_header([A], B)]) == (A, B)
    assert read_hops([]) == ()


@pytest.mark.parametrize(
    "value", [b"", b"x", b"0123", b"0123456789ABCDEF", A.encode() + b"0", b"\xff" * 100, b"0" * 100_000]
)
def test_what_is_no_id_does_not_count(value: bytes) -> None:
    assert read_hops([(HOPS_HEADER, value)]) == ()


def test_there_is_an_end_to_them() -> None:
    assert len(read_hops([(HOPS_HEADER, b", ".join([A.encode()] * 10_000))])) < 100


def test_ids_are_their_servers_alone() -> None:
    assert len({new_server_id() for _ in range(100)}) == 100
    assert ProxyClient().server_id != ProxyClient().server_id


async def test_upstreams_are_told(patient: ProxyClient) -> None:
    """Whatever the client writes there of its own."""
    async with bad_upstream(answer()) as upstream:
        await read(await ask(patient, upstream, headers=[(HOPS_HEADER, b"nonsense")]))
        await patient.get(upstream.url + "/models")
        told = [request.headers[HOPS_HEADER.decode()] for request in upstream.requests]
    assert told == [patient.server_id] * 2
