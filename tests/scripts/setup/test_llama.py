"""llama-cpp-python: a compiler is looked for before pip starts to compile."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.setup import llama
from scripts.setup.errors import SetupError
from scripts.setup.llama import find_compiler, install_llama
from support.environments import FakeEnvironment


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
