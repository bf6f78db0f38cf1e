"""``enginehouse rm`` deletes a model, all of it, and nothing else."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from app.cli.app import cli
from support.gguf import DATA, FILE, SAFETENSORS, header
from support.server import LiveServer, live_server, wait_until


@pytest.fixture(autouse=True)
def base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The model folder; no server runs."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PORT", str(probe.getsockname()[1]))
    base = tmp_path / "models"
    base.mkdir()
    return base


@contextmanager
def serving(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    """A real server of ``base``, which the commands take for this machine's."""
    settings = {"inference_engine": "fake", "inference_mode": "multi_instance", "max_concurrent_models": 2}
    with live_server(**settings, model_base_path=base) as server:
        monkeypatch.setenv("PORT", str(server.port))
        yield server


def rm(*args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["rm", *args], input=stdin)


def put(path: Path, content: bytes = FILE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def hf_folder(folder: Path) -> Path:
    for name in ("config.json", "tokenizer.json"):
        put(folder / name, b"{}")
    put(folder / "model.safetensors", SAFETENSORS)
    return folder


def files(base: Path) -> list[str]:
    return sorted(path.relative_to(base).as_posix() for path in base.rglob("*"))


def test_all_parts_and_conversions_go_and_empty_folders(base: Path) -> None:
    for part in (1, 2):
        put(base / f"acme/big/big-Q8_0-0000{part}-of-00002.gguf")
    for made in ("big-Q8_0.q4_0.gguf", "big-Q8_0.q4_0.gguf.json"):
        put(base / "acme/big/.enginehouse" / made)
    put(base / "acme/other.gguf")
    result = rm("big", "--yes")
    assert result.exit_code == 0, result.output
    assert "Deleted big" in result.stdout
    assert files(base) == ["acme", "acme/other.gguf"]


def test_what_is_another_models_stays(base: Path) -> None:
    put(base / "tiny.gguf")
    kept = [
        put(base / "tiny.q4_0.gguf"),
        put(base / "tiny2.gguf"),
        put(base / ".enginehouse/tiny.q4_0.q8_0.gguf"),
        put(base / ".enginehouse/tiny2.q8_0.gguf"),
        put(base / "models.yaml", b"models: []"),
    ]
    ours = put(base / ".enginehouse/tiny.q8_0.gguf")
    assert rm("tiny.gguf", "-y").exit_code == 0
    assert all(path.exists() for path in kept)
    assert not ours.exists()
    assert not (base / "tiny.gguf").exists()


def test_a_projector_goes_with_the_last_quantisation(base: Path) -> None:
    clip = {"general.architecture": "clip", "clip.has_vision_encoder": True}
    put(base / "seer/mmproj-F16.gguf", header(clip) + bytes(DATA))
    put(base / "seer/seer-Q4_0.gguf")
    put(base / "seer/seer-Q8_0.gguf")
    assert rm("seer-Q8_0", "-y").exit_code == 0
    assert files(base) == ["seer", "seer/mmproj-F16.gguf", "seer/seer-Q4_0.gguf"]
    assert rm("seer", "-y").exit_code == 0
    assert files(base) == []


def test_a_folder_goes_with_all_that_is_in_it(base: Path) -> None:
    folder = hf_folder(base / "acme" / "Tiny")
    put(folder / ".enginehouse/Tiny.4bit/model.safetensors")
    assert rm("acme/Tiny", "--yes").exit_code == 0
    assert files(base) == []
    assert base.is_dir()


def test_a_folder_that_holds_another_model_stays(base: Path) -> None:
    folder = hf_folder(base / "Tiny")
    put(folder / "Nested.Q4_0.gguf")
    result = rm("Tiny", "--yes")
    assert result.exit_code == 1
    assert "delete Nested first" in result.stderr
    assert (folder / "config.json").exists()


def test_links_are_deleted_and_what_they_lead_to_stays(base: Path) -> None:
    blob = put(base / ".blobs/sha")
    (base / "linked.gguf").symlink_to(blob)
    assert rm("linked", "--yes").exit_code == 0
    assert blob.exists()
    assert not os.path.lexists(base / "linked.gguf")


def test_a_linked_folder_inside_a_model_is_not_entered(base: Path, tmp_path: Path) -> None:
    precious = put(tmp_path / "precious/file")
    folder = hf_folder(base / "Tiny")
    (folder / "sub").mkdir()
    (folder / "sub" / "out").symlink_to(precious.parent)
    assert rm("Tiny", "--yes").exit_code == 0
    assert precious.exists()
    assert not folder.exists()


def test_the_bundled_model_stays() -> None:
    result = rm("SmolLM2-135M-Instruct", "--yes")
    assert result.exit_code == 1
    assert "Python package" in result.stderr


def test_what_is_not_there(base: Path) -> None:
    put(base / "models.yaml", b"models: [{name: far, hub: acme/far}]")
    assert "no model 'nope'" in rm("nope", "--yes").stderr
    assert "not on disk" in rm("far", "--yes").stderr


@pytest.mark.parametrize(("answer", "stays"), [("n\n", True), ("", True), ("y\n", False)])
def test_it_asks(base: Path, answer: str, stays: bool) -> None:
    path = put(base / "tiny.gguf", FILE + bytes(2_000_000))
    result = rm("tiny", stdin=answer)
    assert "Delete tiny (2 MB)?" in result.stdout
    assert "models/tiny.gguf" in result.stdout
    assert path.exists() is stays
    assert result.exit_code == (1 if stays else 0)


def test_a_server_unloads_it_first(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(base / "tiny.gguf")
    with serving(base, monkeypatch) as server:
        assert CliRunner().invoke(cli, ["load", "tiny"]).exit_code == 0
        assert server.engine("tiny") is not None
        assert rm("tiny", "--yes").exit_code == 0
        assert server.engine("tiny") is None
    assert files(base) == []


def test_a_model_in_use_stays(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(base / "tiny.gguf")
    with serving(base, monkeypatch) as server:
        assert CliRunner().invoke(cli, ["load", "tiny"]).exit_code == 0
        server.engine("tiny")._delay = 0.02  # type: ignore[union-attr]
        body = {"model": "tiny", "prompt": "word " * 60, "max_tokens": 50}
        asking = threading.Thread(target=lambda: httpx.post(f"{server.url}/v1/completions", json=body))
        asking.start()
        wait_until(lambda: server.house.manager.status("tiny").inflight == 1)
        result = rm("tiny", "--yes")
        asking.join()
    assert result.exit_code == 1
    assert "is in use" in result.stderr
    assert path.exists()
