from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from balancer.proxy.client import ProxyClient


@pytest.fixture
async def relay() -> AsyncIterator[ProxyClient]:
    """A client that waits for nothing long."""
    relay = ProxyClient(first_byte_timeout=0.1, stall_timeout=0.1, connect_timeout=1.0)
    yield relay
    await relay.close()


@pytest.fixture
async def patient() -> AsyncIterator[ProxyClient]:
    relay = ProxyClient()
    yield relay
    await relay.close()
