"""The scripts of examples/ run as they are, against a real server with the small models that there are."""

from __future__ import annotations

import gc
import runpy
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.models import minilm, smollm2
from support.server import LiveServer, live_server
from support.tiny_reranker import tiny_reranker
from support.tiny_vision import tiny_vision

# A script leaves its connections to the end of its process, which here goes on.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of a library that the masks are made with
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SCRIPTS = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
MOST_LINES = 40
# What a script needs besides text: a capability of some model, or a route.
NEEDS = {
    "embeddings_search": "embeddings",
    "fill_in_the_middle": "fim",
    "images": "vision",
    "reasoning": "reasoning",
    "rerank": "rerank",
    "responses": "tools",
    "structured_output": "structured",
    "token_counts": "/v1/tokenize",
    "tools": "tools",
}
MISSING = "No model here"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("models")
    tiny_vision(folder, "qwen2vl")
    tiny_reranker(folder / "reranker.gguf")
    (folder / "minilm.gguf").symlink_to(minilm())
    with live_server(
        default_model=str(smollm2()),
        model_base_path=folder,
        inference_mode="multi_instance",
        max_concurrent_models=4,
        context_length=1024,
        max_sequences=8,
        ollama_api=True,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def abilities(server: LiveServer) -> set[str]:
    """The capabilities of all models, and the routes."""
    with httpx.Client(base_url=server.url) as client:
        models = client.get("/v1/models").json()["data"]
        routes = client.get("/openapi.json").json()["paths"]
    return {*routes, *(able for model in models for able in model.get("capabilities") or ())}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_example_runs(
    script: Path,
    server: LiveServer,
    abilities: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(script.read_text().splitlines()) <= MOST_LINES
    monkeypatch.setenv("BASE_URL", f"{server.url}/v1")
    for name in ("MODEL", "API_KEY"):
        monkeypatch.delenv(name, raising=False)
    needed = NEEDS.get(script.stem)
    if needed is not None and needed not in abilities:
        if needed.startswith("/") or MISSING not in script.read_text():
            pytest.skip(f"nothing here has {needed}")
        with pytest.raises(SystemExit, match=MISSING):
            runpy.run_path(str(script), run_name="__main__")
        return
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.strip()
    gc.collect()  # here, where what is left open may be, and not in another test


def test_the_list_names_every_example() -> None:
    listed = (SCRIPTS[0].parent / "README.md").read_text()
    assert [script.name for script in SCRIPTS if f"[{script.name}]({script.name})" not in listed] == []
