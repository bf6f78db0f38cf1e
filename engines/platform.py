"""What this machine offers, and which engine follows from it.

`detect` looks at the machine and is cheap: it starts no process and imports no engine. `choose_engine`
and `explain` are pure, so every decision can be tested as a table. ``python -m engines.platform``
prints the report that ``enginehouse doctor`` shows.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

PACKAGES = ("llama_cpp", "vllm", "mlx_lm")
"""Import names of the packages that engines are built on."""

_LIBRARY_FOLDERS = (
    "usr/lib",
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib/wsl/lib",
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found. Memory is in bytes; CPUs are those this process may use, not the host's.

    ``cuda`` and ``metal`` say that such a device is present, not that an installed package was built
    for it. ``packages`` are the importable ones of `PACKAGES`.
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
    packages: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class EngineReport:
    """Whether an engine can run here; ``reason`` says why, or what is missing and how to get it."""

    engine: str
    can_run: bool
    reason: str


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine to use, or None if the wish cannot be met; ``reasons`` explain it, one line each."""

    engine: str | None
    reasons: tuple[str, ...]


def explain(facts: Facts) -> tuple[EngineReport, ...]:
    """One report for each engine, best first."""
    return tuple(judge(facts) for judge in _JUDGES.values())


def choose_engine(facts: Facts, requested: str = "auto") -> EngineChoice:
    """Pick the engine for ``requested``: a name, or "auto" for the best one that can run.

    "fake" needs no model and no machine; it exists for tests and is never picked by "auto".
    """
    if requested == "fake":
        return EngineChoice("fake", ("the fake engine was asked for; it makes text up",))
    reports = explain(facts)
    if requested != "auto":
        reports = tuple(report for report in reports if report.engine == requested)
        if not reports:
            return EngineChoice(None, (f"no engine is named {requested}; choose from {', '.join(_JUDGES)}",))
    usable = next((report for report in reports if report.can_run), None)
    if usable is not None:
        return EngineChoice(usable.engine, (f"{usable.engine}: {usable.reason}",))
    return EngineChoice(None, tuple(f"{report.engine}: {report.reason}" for report in reports))


def _judge_vllm(facts: Facts) -> EngineReport:
    return EngineReport("vllm", False, "not in this release")


def _judge_mlx(facts: Facts) -> EngineReport:
    return EngineReport("mlx", False, "not in this release")


def _judge_llama_cpp(facts: Facts) -> EngineReport:
    if "llama_cpp" not in facts.packages:
        missing = "llama-cpp-python is not installed: pip install llama-cpp-python"
        return EngineReport("llama_cpp", False, missing)
    if facts.metal:
        how = "its macOS builds use Metal"
    elif facts.cuda:
        how = "it uses CUDA if it was built for it"
    else:
        how = "it runs on the CPU"
    return EngineReport("llama_cpp", True, f"llama-cpp-python is installed; {how}")


_JUDGES: dict[str, Callable[[Facts], EngineReport]] = {
    "vllm": _judge_vllm,
    "mlx": _judge_mlx,
    "llama_cpp": _judge_llama_cpp,
}


def detect() -> Facts:
    """Look at this machine."""
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
        packages=frozenset(name for name in PACKAGES if importlib.util.find_spec(name) is not None),
    )


def has_cuda(root: Path = Path("/")) -> bool:
    """Whether an NVIDIA driver is installed: its tool, its kernel module or its library is there."""
    if shutil.which("nvidia-smi") or (root / "proc/driver/nvidia").exists():
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
        ("Packages", ", ".join(sorted(facts.packages)) or "none of " + ", ".join(PACKAGES)),
    )


def report(facts: Facts, requested: str = "auto") -> str:
    """The doctor's report as plain text."""
    choice = choose_engine(facts, requested)
    lines = [f"{label + ':':<11} {value}" for label, value in describe(facts)]
    lines += ["", "Engines"]
    lines += [f"  {'yes' if r.can_run else 'no ':<3}  {r.engine:<10} {r.reason}" for r in explain(facts)]
    lines += ["", f"Engine for {requested!r}: {choice.engine or 'none can run here'}"]
    lines += [f"  {reason}" for reason in choice.reasons]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(detect()))
