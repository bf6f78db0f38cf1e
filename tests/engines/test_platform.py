"""Which engine follows from which facts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engines import platform
from engines.platform import Facts, choose_engine, describe, explain, report

LINUX = Facts("linux", "x86_64", "3.11.7", 4, 8, 16 * 2**30, 8 * 2**30)
LLAMA = replace(LINUX, packages=frozenset({"llama_cpp"}))
EVERYTHING = replace(LINUX, cuda=True, packages=frozenset(platform.PACKAGES))
OTHERS = replace(LINUX, packages=frozenset({"vllm", "mlx_lm"}))
MAC = replace(LLAMA, os="darwin", arch="arm64", metal=True)


@pytest.mark.parametrize(
    ("facts", "requested", "engine", "reason"),
    [
        (LLAMA, "auto", "llama_cpp", "runs on the CPU"),
        (LLAMA, "llama_cpp", "llama_cpp", "runs on the CPU"),
        (MAC, "auto", "llama_cpp", "Metal"),
        (replace(LLAMA, cuda=True), "auto", "llama_cpp", "CUDA"),
        (EVERYTHING, "auto", "llama_cpp", "installed"),
        (EVERYTHING, "vllm", None, "not in this release"),
        (EVERYTHING, "mlx", None, "not in this release"),
        (LINUX, "auto", None, "pip install llama-cpp-python"),
        (LINUX, "llama_cpp", None, "pip install llama-cpp-python"),
        (
            replace(LINUX, packages=frozenset({"vllm", "mlx_lm"})),
            "auto",
            None,
            "pip install llama-cpp-python",
        ),
        (LINUX, "fake", "fake", "asked for"),
        (LLAMA, "tensorrt", None, "no engine is named tensorrt"),
    ],
)
def test_choice(facts: Facts, requested: str, engine: str | None, reason: str) -> None:
    choice = choose_engine(facts, requested)
    assert choice.engine == engine
    assert reason in " ".join(choice.reasons)


def test_a_named_engine_is_judged_alone() -> None:
    assert choose_engine(LLAMA, "vllm").engine is None
    assert all("llama" not in reason for reason in choose_engine(LLAMA, "vllm").reasons)


def test_explain_covers_every_engine() -> None:
    assert {r.engine: r.can_run for r in explain(LLAMA)} == {"vllm": False, "mlx": False, "llama_cpp": True}


def test_report_names_the_choice_and_the_reasons() -> None:
    text = report(LINUX)
    assert "none can run here" in text
    assert "8.0 GiB available of 16.0 GiB" in text
    assert text.count("not in this release") >= 2
    assert dict(describe(replace(LINUX, cuda=True)))["Devices"] == "CPU, NVIDIA GPU (CUDA)"


def test_detect_is_plausible() -> None:
    facts = platform.detect()
    assert 1 <= facts.physical_cpus <= facts.logical_cpus
    assert 0 < facts.memory_available <= facts.memory_total
    assert facts.packages <= set(platform.PACKAGES)


def test_detecting_imports_no_engine() -> None:
    code = (
        "import sys; from engines.platform import detect; detect();"
        "sys.exit(any(name in sys.modules for name in ('llama_cpp', 'vllm', 'mlx_lm', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("trace", ["proc/driver/nvidia", "usr/lib/x86_64-linux-gnu/libcuda.so.1"])
def test_cuda_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trace: str) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not platform.has_cuda(tmp_path)
    (tmp_path / trace).mkdir(parents=True)
    assert platform.has_cuda(tmp_path)


def test_nvidia_smi_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert platform.has_cuda(tmp_path)


@pytest.mark.parametrize(("quota", "cpus"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1)])
def test_a_containers_cpu_quota_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cpus: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert platform._usable_cpus(tmp_path) == cpus


def test_a_containers_memory_limit_counts(tmp_path: Path) -> None:
    assert platform._memory_limit(tmp_path) == 2**63
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert platform._memory_limit(tmp_path) == 2**30
