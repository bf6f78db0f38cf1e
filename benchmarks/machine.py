"""What was measured on: without this, numbers mean nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from app import __version__


def describe(model: Path, peer: Path | None) -> dict[str, str]:
    """The machine and the versions, by name, in the order in which they are shown."""
    system = f"{platform.system()} {platform.release()}"
    facts = {
        "CPU": f"{cpu_model()}, {os.cpu_count()} cores",
        "Memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "System": f"{system}, Python {platform.python_version()}",
        "Model": f"{model.name}, {model.stat().st_size / 2**20:.1f} MiB",
        "Versions": f"enginehouse {__version__}, llama-cpp-python {_package('llama-cpp-python')}",
    }
    if peer is not None:
        facts["Peer"] = f"llama-server {peer_version(peer)}"
    return facts


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def peer_version(peer: Path) -> str:
    env = {**os.environ, "LD_LIBRARY_PATH": str(peer.parent)}
    done = subprocess.run([str(peer), "--version"], capture_output=True, text=True, env=env, timeout=30)
    for line in (done.stdout + done.stderr).splitlines():
        if line.startswith("version:"):
            return line.removeprefix("version:").strip()
    return "of unknown version"


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
