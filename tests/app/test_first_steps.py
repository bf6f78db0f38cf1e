"""What a newcomer is told when the server is ready: addresses and commands that work as printed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from app import first_steps
from app.server import Server
from app.settings import Settings
from engines import selection


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://localhost:8000"),
        ("::", "http://localhost:8000"),
        ("10.1.2.3", "http://10.1.2.3:8000"),
        ("::1", "http://[::1]:8000"),
    ],
)
def test_the_url_people_are_told(host: str, url: str) -> None:
    assert first_steps.public_url(Settings(_env_file=None, host=host, port=8000)) == url


@pytest.mark.parametrize("host", ["0.0.0.0", "::1"])
def test_the_curl_can_be_pasted(host: str) -> None:
    settings = Settings(_env_file=None, host=host, port=8000, api_keys="sk-secret")
    command = first_steps.ready_fields(settings, "it's [bold]")["curl"]
    assert "sk-secret" not in command
    assert "Bearer $API_KEY" in command
    echo = "curl() { for word; do printf '%s\\n' \"$word\"; done; }\n" + command
    words = subprocess.run(["sh", "-c", echo], capture_output=True, text=True, check=True).stdout.splitlines()
    assert f"{first_steps.public_url(settings)}/v1/chat/completions" in words
    assert ("-g" in words) == (host == "::1"), "else curl takes brackets for a pattern"
    request = json.loads(words[-1])
    assert request["model"] == "it's [bold]"
    assert request["max_tokens"] == first_steps.MAX_TOKENS


def test_the_command_is_that_of_this_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.chdir(tmp_path)
    assert first_steps.command() == f"{folder / 'python'} -m app"
    script = folder / ("enginehouse.exe" if sys.platform == "win32" else "enginehouse")
    script.touch()
    assert first_steps.command() == str(script.relative_to(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert first_steps.command() == str(script)


def test_others_reach_it_at_addresses_of_real_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    def at(address: str, family: int = socket.AF_INET) -> SimpleNamespace:
        return SimpleNamespace(family=family, address=address)

    networks = {
        "lo": [at("127.0.0.1")],
        "eth0": [at("fd00::7", socket.AF_INET6), at("fe80::1%eth0", socket.AF_INET6), at("192.168.1.5")],
        "eth1": [at("10.0.0.9")],
        "docker0": [at("172.17.0.1")],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: networks)
    monkeypatch.setattr(
        psutil, "net_if_stats", lambda: {name: SimpleNamespace(isup=name != "eth1") for name in networks}
    )
    everywhere = Settings(_env_file=None, host="0.0.0.0", port=8000)
    assert first_steps.urls(everywhere) == ["http://localhost:8000", "http://192.168.1.5:8000"]
    both = Settings(_env_file=None, host="::", port=8000)
    assert first_steps.urls(both)[1:] == ["http://192.168.1.5:8000", "http://[fd00::7]:8000"]
    here = Settings(_env_file=None, host="127.0.0.1", port=8000)
    assert first_steps.urls(here) == ["http://127.0.0.1:8000"]


@pytest.mark.parametrize(("device", "told"), [("auto", True), ("cpu", False)])
def test_the_start_tells_of_a_gpu_that_the_default_models_engine_leaves_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, told: bool
) -> None:
    facts = replace(selection.detect(), cuda=True, metal=False)
    monkeypatch.setattr(selection, "detect", lambda: facts)
    monkeypatch.setattr("engines.llamacpp.descriptor._can_offload", lambda: False)
    server = Server(Settings(_env_file=None, model_base_path=tmp_path, device_type=device))
    assert ("llama.cpp was built for the CPU" in server.idle_gpu()) is told
