"""The machine's facts: system, processors, memory, kinds of devices. Looking starts no process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_NVIDIA = ("proc/driver/nvidia", "dev/nvidia0", "dev/nvidiactl")
_LIBRARY_FOLDERS = (
    "usr/lib",
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib/wsl/lib",
)


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of this machine. Memory is in bytes; CPUs are those this process may use, not the host's.

    ``cuda`` and ``metal`` say that such a device is present, not that an installed package was built
    for it. ``packages`` are the importable ones that engines are built on, with their versions ("" if
    unknown).
    """

    os: str
    arch: str
    python: str
    physical_cpus: int
    logical_cpus: int
    memory_total: int
    memory_available: int
    cuda: bool = False
    metal: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_macos(self) -> bool:
        return self.os == "darwin"

    @property
    def is_windows(self) -> bool:
        return self.os == "windows"


def detect(packages: Mapping[str, str]) -> Facts:
    """Look at this machine, where ``packages`` of engines were found."""
    logical = _usable_cpus()
    memory = psutil.virtual_memory()
    limit = _memory_limit()
    system, arch = platform.system().lower(), platform.machine().lower()
    return Facts(
        os=system,
        arch=arch,
        python=platform.python_version(),
        physical_cpus=min(psutil.cpu_count(logical=False) or logical, logical),
        logical_cpus=logical,
        memory_total=min(memory.total, limit),
        memory_available=min(memory.available, limit),
        cuda=has_cuda(),
        metal=system == "darwin" and arch == "arm64",
        packages=packages,
    )


def is_importable(package: str) -> bool:
    """Whether an import would find ``package``; nothing is imported."""
    return importlib.util.find_spec(package) is not None


def version_of(distribution: str) -> str:
    """The version of an installed distribution; empty if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def has_cuda(root: Path = Path("/")) -> bool:
    """Whether an NVIDIA driver is installed: its tool, its module, a device or its library is there."""
    if shutil.which("nvidia-smi") or any((root / place).exists() for place in _NVIDIA):
        return True
    return any(next((root / folder).glob("libcuda.so*"), None) is not None for folder in _LIBRARY_FOLDERS)


def _usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs this process may use: its affinity, and a container's quota, which affinity does not show."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return max(1, min(count, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no cgroup v2, or the quota is "max"
        return count


def _memory_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """A container's memory limit in bytes; far beyond any memory if there is none."""
    try:
        return int((cgroup / "memory.max").read_text())
    except (OSError, ValueError):  # no cgroup v2, or the limit is "max"
        return 2**63


def devices(facts: Facts) -> str:
    """The kinds of devices present, for people."""
    kinds = ["CPU"]
    if facts.cuda:
        kinds.append("NVIDIA GPU (CUDA)")
    if facts.metal:
        kinds.append("Apple GPU (Metal)")
    return ", ".join(kinds)


def describe(facts: Facts) -> tuple[tuple[str, str], ...]:
    """The facts as label and value, for people."""
    gib = 2**30
    cpus = f"{facts.physical_cpus} physical, {facts.logical_cpus} logical"
    memory = f"{facts.memory_available / gib:.1f} GiB available of {facts.memory_total / gib:.1f} GiB"
    return (
        ("Platform", f"{facts.os} {facts.arch}"),
        ("Python", facts.python),
        ("CPU cores", cpus),
        ("Memory", memory),
        ("Devices", devices(facts)),
        ("Packages", ", ".join(sorted(facts.packages)) or "none that an engine needs"),
    )
