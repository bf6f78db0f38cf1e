from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.models import smollm2
from support.server import LiveServer, live_server


@pytest.fixture(scope="package")
def server() -> Iterator[LiveServer]:
    """The real thing: SmolLM2 behind a real uvicorn."""
    with live_server(
        default_model=str(smollm2()), context_length=2048, kv_cache_tokens=8192, max_concurrent_requests=64
    ) as server:
        yield server


@pytest.fixture
def model(server: LiveServer) -> str:
    return server.house.default.name
