"""llama-cpp-python comes as source and compiles llama.cpp for minutes: a step of its own."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence

from scripts.setup.environment import Environment
from scripts.setup.errors import SetupError

NO_COMPILER = """\
No C++ compiler was found, and llama-cpp-python has to be compiled. Either install one:
  Debian, Ubuntu   sudo apt-get install build-essential
  Fedora           sudo dnf install gcc-c++ make
  macOS            xcode-select --install
  Windows          Visual Studio Build Tools, with "Desktop development with C++"
or install a prebuilt wheel into {venv} (there are CPU, CUDA and Metal builds: "prebuilt wheels" in
llama-cpp-python's README has the commands). Then run this again.
To compile for an NVIDIA GPU, set CMAKE_ARGS="-DGGML_CUDA=on" first."""


def find_compiler(environ: Mapping[str, str], which: Callable[[str], str | None]) -> str | None:
    """Path of the C++ compiler that CMake would find, or None. ``CXX`` comes first, as it does there."""
    chosen = shlex.split(environ.get("CXX", ""))[:1]
    for name in [*chosen, "c++", "g++", "clang++", "cl"]:
        if path := which(name):
            return path
    return None


def install_llama(environment: Environment, requirements: Sequence[str]) -> None:
    """Install llama-cpp-python, which compiles it unless pip has kept the wheel of an earlier time."""
    if not environment.has("llama-cpp-python"):
        if find_compiler(os.environ, shutil.which) is None:
            raise SetupError(NO_COMPILER.format(venv=environment.venv))
        print("the first time, llama-cpp-python compiles llama.cpp, which takes minutes", flush=True)
        if shutil.which("nvidia-smi") and "CMAKE_ARGS" not in os.environ:
            print('for a CUDA build, stop this and set CMAKE_ARGS="-DGGML_CUDA=on"', flush=True)
    # -v: without it pip keeps the compiler's output, and so the progress, to itself.
    environment.pip("installing llama-cpp-python", "install", "-v", *requirements)
