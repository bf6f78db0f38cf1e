"""Peers that are Python programs and cannot share our packages: each gets an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from benchmarks.harness.processes import NotInstalled, say
from benchmarks.harness.servers import Bench

INSTALL_TIMEOUT = 900.0
# What pip installs, by the name of the program.
REQUIREMENTS = {"vllm-router": "vllm-router", "litellm": "litellm[proxy]"}


def program(bench: Bench, name: str) -> Path:
    """The program ``name``, installed first if it is not there. Raises `NotInstalled`."""
    folder = (bench.environments or Path(sys.prefix) / "peers") / name
    reason = _install(folder, name)
    if reason:
        raise NotInstalled(f"{REQUIREMENTS[name]} cannot be installed: {reason}")
    return folder / "bin" / name


def versions(bench: Bench) -> str:
    """Those of the programs that are installed; they are installed first."""
    return ", ".join(_version(bench, name) for name in REQUIREMENTS)


def _version(bench: Bench, name: str) -> str:
    try:
        python = program(bench, name).with_name("python")
    except NotInstalled:
        return f"{name} not installed"
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60)
    return f"{name} {done.stdout.strip() or 'of unknown version'}"


@cache
def _install(folder: Path, name: str) -> str:
    """Why it could not be installed, "" if it is. What failed is not tried again in this run."""
    # pip puts a package's programs there last, after all that it requires.
    if (folder / "bin" / name).exists():
        return ""
    say(f"installing {REQUIREMENTS[name]} into {folder}")
    # A wheel of its own: compiling a Rust program would take long and need its compiler.
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--only-binary", name, REQUIREMENTS[name]]
    try:
        for command in ([sys.executable, "-m", "venv", folder], pip):
            subprocess.run(
                list(map(str, command)), check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT
            )
    except subprocess.CalledProcessError as error:
        return " ".join((error.stderr or error.stdout).split())[-400:]
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""
