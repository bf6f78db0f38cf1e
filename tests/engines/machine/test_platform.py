"""What is found of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.machine import platform
from engines.machine.platform import Facts, describe


def test_devices_are_named_for_people() -> None:
    facts = Facts("linux", "x86_64", "3.11.7", 4, 8, 16 * 2**30, 8 * 2**30, cuda=True)
    shown = dict(describe(facts))
    assert shown["Devices"] == "CPU, NVIDIA GPU (CUDA)"
    assert shown["Memory"] == "8.0 GiB available of 16.0 GiB"
    assert shown["Packages"] == "none that an engine needs"


def test_detect_is_plausible() -> None:
    facts = platform.detect({"llama_cpp": "0.3.36"})
    assert 1 <= facts.physical_cpus <= facts.logical_cpus
    assert 0 < facts.memory_available <= facts.memory_total
    assert facts.packages == {"llama_cpp": "0.3.36"}


@pytest.mark.parametrize(
    "trace", ["proc/driver/nvidia", "dev/nvidia0", "usr/lib/x86_64-linux-gnu/libcuda.so.1"]
)
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
