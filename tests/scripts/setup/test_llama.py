"""llama-cpp-python: a compiler is looked for before pip starts to compile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.setup import llama
from scripts.setup.errors import SetupError, StepFailed
from scripts.setup.llama import WITHOUT_AMX, find_compiler, install_llama, repair_llama
from support.environments import Command, FakeEnvironment


@pytest.mark.parametrize(
    ("environ", "present", "found"),
    [
        ({}, {"c++": "/usr/bin/c++", "g++": "/usr/bin/g++"}, "/usr/bin/c++"),
        ({}, {"clang++": "/usr/bin/clang++"}, "/usr/bin/clang++"),
        ({"CXX": "g++-14 -m64"}, {"g++-14": "/opt/g++-14", "c++": "/usr/bin/c++"}, "/opt/g++-14"),
        ({"CXX": "gone"}, {"g++": "/usr/bin/g++"}, "/usr/bin/g++"),
        ({}, {"gcc": "/usr/bin/gcc"}, None),
        ({}, {}, None),
    ],
)
def test_compiler(environ: dict[str, str], present: dict[str, str], found: str | None) -> None:
    assert find_compiler(environ, present.get) == found


def test_without_compiler_setup_stops_before_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "find_compiler", lambda environ, which: None)
    environment = FakeEnvironment(tmp_path)
    with pytest.raises(SetupError) as caught:
        install_llama(environment, ["llama-cpp-python>=1"])
    for hint in ("build-essential", "xcode-select", "dnf", "Visual Studio", "prebuilt wheel", "GGML_CUDA"):
        assert hint in str(caught.value)
    assert environment.commands == []


def test_an_installed_llama_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "find_compiler", lambda environ, which: None)
    environment = FakeEnvironment(tmp_path, present={"llama-cpp-python"})
    install_llama(environment, ["llama-cpp-python>=1"])
    assert environment.commands == [("install", "-v", "llama-cpp-python>=1")]


def test_a_build_that_runs_is_left_alone(tmp_path: Path) -> None:
    environment = FakeEnvironment(tmp_path)
    environment.statuses = [0]
    repair_llama(environment, ["llama-cpp-python>=1"])
    environment.statuses = [1]  # no signal: the model is missing, say
    repair_llama(environment, ["llama-cpp-python>=1"])
    assert environment.commands == []


@pytest.mark.parametrize("flags", [None, "-O2"])
def test_a_build_that_dies_is_compiled_again_without_amx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None
) -> None:
    monkeypatch.delenv("CFLAGS", raising=False)
    if flags is not None:
        monkeypatch.setenv("CFLAGS", flags)

    def effect(command: Command) -> None:
        if command[0] == "cache":
            raise StepFailed("no matching packages", "")

    environment = FakeEnvironment(tmp_path, effect=effect)
    environment.statuses = [-4, 0]
    repair_llama(environment, ["llama-cpp-python>=1"])
    forget, build = environment.commands
    assert forget == ("cache", "remove", "llama_cpp_python")
    assert {"install", "--force-reinstall", "--no-deps", "llama-cpp-python>=1"} <= set(build)
    assert environment.flags[1] == f"{flags or ''} {WITHOUT_AMX}".strip()
    assert os.environ.get("CFLAGS") == flags


def test_a_build_that_dies_without_amx_too_is_told(tmp_path: Path) -> None:
    environment = FakeEnvironment(tmp_path)
    environment.statuses = [-4, -11]
    with pytest.raises(SetupError, match=r"status -11.*\n.*\n.*GGML_NATIVE=OFF"):
        repair_llama(environment, ["llama-cpp-python>=1"])
