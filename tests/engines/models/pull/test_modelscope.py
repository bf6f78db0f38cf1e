"""ModelScope's side: its own package lists the files, and the same downloader fetches them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.models.pull.puller import Puller, PullError, PullRequest
from support import hub as stand_in
from support.hub import Hub

CONTENT = {"config.json": b"{}", "model.safetensors": b"weights" * 9999}
installed = importlib.util.find_spec("modelscope_hub") is not None


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with stand_in.running() as hub:
        hub.repos["acme/tiny"] = dict(CONTENT)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-secret")
        yield hub


def request(target: Path, repo: str = "acme/tiny") -> PullRequest:
    return PullRequest(repo, "modelscope", target)


@pytest.mark.skipif(not installed, reason="needs modelscope")
async def test_a_whole_model(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = [2**16]
    model = await Puller(backoff=0.01).pull(request(tmp_path / "tiny"), lambda progress: None)
    assert {p.name: p.read_bytes() for p in model.path.iterdir()} == CONTENT
    assert hub.tokens == {("127.0.0.1", "Bearer ms-secret")}
    assert len(hub.downloads) == 3


@pytest.mark.skipif(not installed, reason="needs modelscope")
async def test_damage_is_noticed(hub: Hub, tmp_path: Path) -> None:
    hub.damaged = {"model.safetensors"}
    with pytest.raises(PullError, match=r"wrong checksum: model\.safetensors"):
        await Puller().pull(request(tmp_path / "tiny"), lambda progress: None)


@pytest.mark.skipif(not installed, reason="needs modelscope")
async def test_an_unknown_model(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(PullError, match="ModelScope has no model acme/none"):
        await Puller().pull(request(tmp_path / "none", "acme/none"), lambda progress: None)


@pytest.mark.skipif(installed, reason="needs modelscope to be absent")
async def test_without_its_package(tmp_path: Path) -> None:
    with pytest.raises(PullError, match="`pip install modelscope` installs it"):
        await Puller().pull(request(tmp_path / "tiny"), lambda progress: None)
