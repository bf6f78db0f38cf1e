from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.models import smollm2, smollm2_folder
from support.proofs import ANSWERS
from support.server import LiveServer, live_server

SIZES = {"context_length": 2048, "kv_cache_tokens": 8192, "max_concurrent_requests": 64}


@pytest.fixture(scope="package")
def server() -> Iterator[LiveServer]:
    """The real thing: SmolLM2 behind a real uvicorn."""
    with live_server(default_model=str(smollm2()), **SIZES) as server:
        yield server


@pytest.fixture(scope="package")
def mlx_server() -> Iterator[LiveServer]:
    """The same model on MLX."""
    with live_server(default_model=str(smollm2_folder()), **SIZES) as server:
        yield server


@pytest.fixture(params=[*ANSWERS])
def each_server(request: pytest.FixtureRequest) -> LiveServer:
    """Each engine that masks what its model says, in turn."""
    found: LiveServer = request.getfixturevalue("server" if request.param == "llama_cpp" else "mlx_server")
    return found


@pytest.fixture
def answers(request: pytest.FixtureRequest) -> int:
    """How many answers prove it on `each_server`."""
    return ANSWERS[request.node.callspec.params["each_server"]]


@pytest.fixture
def model(server: LiveServer) -> str:
    return server.house.default.name
