"""Pulls from a stand-in hub, through the real child process."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engines.models.pull.puller import PulledModel, Puller, PullError, PullProgress, PullRequest
from engines.models.pull.sources import RemoteFile
from engines.models.pull.staging import Staging
from support import hub as stand_in
from support.hub import Hub

pytestmark = pytest.mark.processes

MEGABYTE = 2**20
WEIGHTS = random.Random(1).randbytes(3 * MEGABYTE)
MORE_WEIGHTS = random.Random(2).randbytes(MEGABYTE)
MODEL = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}" * 900,
    "chat_template.jinja": b"{{ messages }}",
    "model-00001-of-00002.safetensors": WEIGHTS,
    "model-00002-of-00002.safetensors": MORE_WEIGHTS,
    "pytorch_model.bin": b"the same again" * 100,
    "onnx/model.onnx": b"the same again" * 100,
}
CHOSEN = sorted(set(MODEL) - {".gitattributes", "pytorch_model.bin", "onnx/model.onnx"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with stand_in.running() as hub:
        hub.repos["acme/tiny"] = dict(MODEL)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield hub


class Pull:
    """A pull of acme/tiny into ``base``, and the progress that it reported."""

    def __init__(self, base: Path, *, repo: str = "acme/tiny", revision: str | None = None) -> None:
        self.base = base
        self.target = base / "tiny"
        self.repo = repo
        self.revision = revision
        self.progress: list[PullProgress] = []

    async def run(self, *include: str) -> PulledModel:
        request = PullRequest(self.repo, "huggingface", self.target, self.revision, include)
        return await Puller(backoff=0.01).pull(request, self.progress.append)

    async def fails(self, *include: str) -> PullError:
        with pytest.raises(PullError) as caught:
            await self.run(*include)
        return caught.value

    async def until_downloading(self, at_least: int = 1) -> asyncio.Task[PulledModel]:
        """Start it, and return it when some of the download is there."""
        task = asyncio.create_task(self.run())
        while not any(p.status == "downloading" and p.completed >= at_least for p in self.progress):
            assert not task.done(), task
            await asyncio.sleep(0.005)
        return task

    def phase(self, status: str) -> list[PullProgress]:
        return [p for p in self.progress if p.status == status]

    def files(self) -> dict[str, bytes]:
        return contents(self.target)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "engines.models.pull.worker" in " ".join(p.cmdline())]


async def test_a_whole_model(hub: Hub, tmp_path: Path) -> None:
    pull = Pull(tmp_path)
    model = await pull.run()
    assert model.path == pull.target
    assert sorted(model.files) == CHOSEN
    assert model.size == sum(len(MODEL[name]) for name in CHOSEN)
    assert pull.files() == {name: MODEL[name] for name in CHOSEN}
    assert os.listdir(tmp_path) == ["tiny"], "nothing else is left"


async def test_progress_is_monotone_and_complete(hub: Hub, tmp_path: Path) -> None:
    hub.pause = 0.02
    pull = Pull(tmp_path)
    model = await pull.run()
    statuses = list(dict.fromkeys(p.status for p in pull.progress))
    assert statuses == ["resolving", "downloading", "verifying", "done"]
    for status in ("downloading", "verifying"):
        phase = pull.phase(status)
        assert {p.total for p in phase} == {model.size}
        assert [p.completed for p in phase] == sorted(p.completed for p in phase)
        assert (phase[0].completed, phase[-1].completed) == (0, model.size)
    middle = pull.phase("downloading")[1:-1]
    assert middle
    assert all(p.speed > 0 and p.eta_seconds is not None and p.file in CHOSEN for p in middle)


async def test_goes_on_after_a_cut(hub: Hub, tmp_path: Path) -> None:
    hub.repos["acme/tiny"] = {"model.safetensors": WEIGHTS}
    hub.cuts = [MEGABYTE, MEGABYTE // 2]
    pull = Pull(tmp_path)
    await pull.run()
    assert pull.files() == {"model.safetensors": WEIGHTS}
    starts = [int(span.removeprefix("bytes=").split("-")[0]) for _, span in hub.downloads if span]
    assert len(hub.downloads) == 3
    assert 0 < starts[0] <= MEGABYTE < starts[1] <= 1.5 * MEGABYTE


async def test_a_hub_that_does_not_continue_files(hub: Hub, tmp_path: Path) -> None:
    hub.repos["acme/tiny"] = {"model.safetensors": WEIGHTS}
    hub.cuts, hub.ranges = [MEGABYTE], False
    pull = Pull(tmp_path)
    model = await pull.run()
    assert pull.files() == {"model.safetensors": WEIGHTS}
    assert pull.phase("downloading")[-1].completed == model.size


async def test_gives_up_on_a_connection_that_brings_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.repos["acme/tiny"] = {"model.safetensors": WEIGHTS}
    hub.cuts = [0] * 6
    error = await Pull(tmp_path).fails()
    assert error.retryable
    assert "model.safetensors cannot be reached" in error.message
    assert len(hub.downloads) == 6


async def test_a_passing_fault_of_the_hub_is_retried(hub: Hub, tmp_path: Path) -> None:
    hub.statuses = [500]
    pull = Pull(tmp_path)
    await pull.run()
    assert sorted(pull.files()) == CHOSEN


async def test_cancelling_stops_at_once_and_the_next_pull_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.repos["acme/tiny"] = {"model.safetensors": WEIGHTS}
    hub.pause = 0.05
    pull = Pull(tmp_path)
    task = await pull.until_downloading(MEGABYTE // 2)
    worker = children()
    assert worker
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(1):
            await task
    assert not any(p.is_running() for p in worker)
    assert not pull.target.exists()
    hub.pause = 0
    again = Pull(tmp_path)
    await again.run()
    assert again.phase("downloading")[0].completed >= MEGABYTE // 2
    assert again.files() == {"model.safetensors": WEIGHTS}
    assert os.listdir(tmp_path) == ["tiny"]


async def test_a_killed_worker_is_an_error_and_the_next_pull_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.pause = 0.05
    pull = Pull(tmp_path)
    task = await pull.until_downloading(MEGABYTE // 2)
    (worker,) = children()
    worker.kill()
    with pytest.raises(PullError, match="killed by SIGKILL") as caught:
        await task
    assert caught.value.retryable
    hub.pause = 0
    again = Pull(tmp_path)
    await again.run()
    assert again.phase("downloading")[0].completed >= MEGABYTE // 2
    assert sorted(again.files()) == CHOSEN


async def test_the_worker_dies_with_its_parent(hub: Hub, tmp_path: Path) -> None:
    hub.pause = 0.2
    code = (
        "import asyncio; from pathlib import Path; from engines.models.pull.puller import *;"
        f"request = PullRequest('acme/tiny', 'huggingface', Path({str(tmp_path / 'tiny')!r}));"
        "asyncio.run(Puller().pull(request, lambda progress: None))"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    while not hub.downloads:
        assert parent.returncode is None
        await asyncio.sleep(0.01)
    (worker,) = psutil.Process(parent.pid).children()
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    assert worker.wait(5) is None


async def test_what_arrives_damaged_is_removed(hub: Hub, tmp_path: Path) -> None:
    hub.damaged = {"config.json", "model-00002-of-00002.safetensors"}  # one without LFS, one with
    pull = Pull(tmp_path)
    error = await pull.fails()
    assert "wrong checksum: config.json, model-00002-of-00002.safetensors" in error.message
    assert not pull.target.exists()
    damaged, hub.damaged = hub.damaged, set()
    hub.downloads.clear()
    await Pull(tmp_path).run()
    assert {name for name, _ in hub.downloads} == damaged, "the others were kept"


async def test_a_new_version_replaces_what_changed(hub: Hub, tmp_path: Path) -> None:
    await Pull(tmp_path).run()
    hub.repos["acme/tiny"]["model-00001-of-00002.safetensors"] = WEIGHTS[::-1]  # of the same size
    hub.downloads.clear()
    pull = Pull(tmp_path)
    await pull.run()
    assert [name for name, _ in hub.downloads] == ["model-00001-of-00002.safetensors"]
    assert pull.files()["model-00001-of-00002.safetensors"] == WEIGHTS[::-1]
    assert os.listdir(tmp_path) == ["tiny"]


async def test_the_token_is_sent_to_the_hub_only(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.elsewhere = True
    pull = Pull(tmp_path)
    await pull.run()
    assert sorted(pull.files()) == CHOSEN
    assert hub.tokens == {("127.0.0.1", "Bearer hf_secret"), ("localhost", None)}


@pytest.mark.parametrize(
    ("repo", "revision", "message"),
    [
        ("acme/gated", None, "accept its licence at .*/acme/gated and set HF_TOKEN"),
        ("acme/forbidden", None, "refuses access .403.: set HF_TOKEN"),
        ("acme/none", None, "has no model acme/none"),
        ("acme/tiny", "v9", "acme/tiny has no revision 'v9'"),
        ("a/b/c", None, "it has the form owner/name"),
    ],
)
async def test_refusals_say_what_to_do(
    hub: Hub, tmp_path: Path, repo: str, revision: str | None, message: str
) -> None:
    hub.refusals = {"acme/gated": "GatedRepo", "acme/forbidden": "Other"}
    pull = Pull(tmp_path, repo=repo, revision=revision)
    with pytest.raises(PullError, match=message) as caught:
        await pull.run()
    assert not caught.value.retryable
    assert os.listdir(tmp_path) == []


async def test_no_hub_is_worth_another_try(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = await Pull(tmp_path).fails()
    assert error.retryable
    assert "check the network" in error.message


async def test_what_cannot_be_understood_is_an_error(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hello from a library', flush=True)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    error = await Pull(tmp_path / "models").fails()
    assert "broke off" in error.message


async def test_include_chooses(hub: Hub, tmp_path: Path) -> None:
    pull = Pull(tmp_path)
    model = await pull.run("*.bin", "onnx/*")
    assert sorted(model.files) == ["onnx/model.onnx", "pytorch_model.bin"]
    assert sorted(pull.files()) == ["onnx/model.onnx", "pytorch_model.bin"]


async def test_a_model_larger_than_the_disk(hub: Hub, tmp_path: Path) -> None:
    hub.announced["model-00001-of-00002.safetensors"] = 10**16
    error = await Pull(tmp_path).fails()
    assert "the download needs 10000000.1" in error.message
    assert not hub.downloads


async def test_a_disk_that_fills_up(hub: Hub, tmp_path: Path) -> None:
    hub.repos["acme/tiny"] = {"model.safetensors": WEIGHTS}
    pull = Pull(tmp_path)
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    part = Staging(pull.target).part(RemoteFile("model.safetensors", len(WEIGHTS), "", sha256=sha256))
    part.parent.mkdir()
    part.symlink_to("/dev/full")  # every write: no space left on device
    error = await pull.fails()
    assert "disk" in error.message
    assert "is full: make room" in error.message
    assert not pull.target.exists()


async def test_two_pulls_of_one_target(hub: Hub, tmp_path: Path) -> None:
    hub.pause = 0.05
    first = Pull(tmp_path)
    task = await first.until_downloading()
    assert "another pull" in (await Pull(tmp_path).fails()).message
    hub.pause = 0
    await task
    assert sorted(first.files()) == CHOSEN


@pytest.mark.parametrize(
    "name", ["../evil.json", "/tmp/evil.json", "a/../../evil.json", "..\\evil.json", "C:evil.json"]
)
async def test_names_that_lead_outside_are_refused(hub: Hub, tmp_path: Path, name: str) -> None:
    base = tmp_path / "models"
    base.mkdir()
    hub.repos["acme/tiny"][name] = b"{}"
    error = await Pull(base).fails()
    assert "not safe" in error.message
    assert not hub.downloads
    assert contents(tmp_path) == {}


async def test_a_hub_that_sends_more_than_it_announced(hub: Hub, tmp_path: Path) -> None:
    hub.announced["model-00001-of-00002.safetensors"] = MEGABYTE
    pull = Pull(tmp_path)
    error = await pull.fails()
    assert "sends more of model-00001-of-00002.safetensors" in error.message
    assert not pull.target.exists()
