"""The environments of client libraries: what each has, its lock file, and how it is installed.

uv installs them, as it resolves hundreds of packages in seconds; it has a small environment of its own.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from scripts.lock import closure
from scripts.setup.environment import Environment
from scripts.setup.errors import SetupError, StepFailed
from scripts.setup.extras import Record, fingerprint
from scripts.setup.steps import run_step

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "clients"
FOLDER = TESTS / "environments"
VENVS = ROOT / ".venv-clients"
TOOLS = FOLDER / "tools.in"
OVERRIDES = FOLDER / "overrides.txt"
UV = "uv>=0.9,<1"
# Where a library's tests are, if they are not called as the library is.
TEST_NAMES = {
    "pydantic-ai-slim": "pydantic_ai",
    "llama-index-llms-openai-like": "llama_index",
    "haystack-ai": "haystack",
}


@dataclass(frozen=True, slots=True)
class ClientLibrary:
    """A library of one environment: ``requirement`` as pip has it, and where its tests are."""

    requirement: str

    @property
    def name(self) -> str:
        return Requirement(self.requirement).name

    @property
    def tests(self) -> Path:
        return TESTS / f"test_{TEST_NAMES.get(self.name, self.name.replace('-', '_'))}.py"


class ClientEnvironment:
    """One environment: ``name`` stands for its requirements, its lock file, and its folder."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.venv = Environment(VENVS / name)
        self.requirements = FOLDER / f"{name}.in"
        self.lock = FOLDER / f"{name}.lock"

    @cached_property
    def libraries(self) -> tuple[ClientLibrary, ...]:
        lines = self.requirements.read_text(encoding="utf-8").splitlines()
        return tuple(ClientLibrary(line) for line in lines if line and not line.startswith("#"))

    def install(self) -> dict[str, str]:
        """Install what is missing; return the libraries that no registry gave, each with the reason.

        Raises `SetupError` if the environment itself cannot be made.
        """
        wanted = frozenset(library.name for library in self.libraries)
        current = self._fingerprint()
        if not Record.read(self.venv.venv).covers(wanted, current):
            self.venv.create()
            left_out = self._install()
            Record(wanted - left_out.keys(), current).write(self.venv.venv)
            if left_out:
                return left_out
        self._borrow_torch()
        return {}

    def versions(self) -> dict[str, str]:
        """The versions of its libraries, those that are installed."""
        code = (
            "import importlib.metadata as m, json, sys; "
            "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
        )
        if not self.venv.python.exists():
            return {}
        done = subprocess.run([self.venv.python, "-c", code], capture_output=True, text=True, check=False)
        installed: dict[str, str] = json.loads(done.stdout or "{}")
        return {each.name: installed[each.name] for each in self.libraries if each.name in installed}

    def write_lock(self) -> None:
        """Choose the newest versions within the ranges, of everything. Raises `StepFailed`."""
        command = ["pip", "compile", "--universal", "--python-version", "3.11", "--upgrade", "--no-header"]
        files = [str(TOOLS.relative_to(ROOT)), str(self.requirements.relative_to(ROOT))]
        options = ["--override", str(OVERRIDES.relative_to(ROOT)), "--no-annotate", "-o", str(self.lock)]
        uv(f"choosing versions for {self.name}", [*command, *files, *options])

    def _fingerprint(self) -> str:
        files = [TOOLS, OVERRIDES, self.requirements, self.lock, Path(__file__)]
        return fingerprint({"project": [platform.python_version(), sys.platform]}, files)

    def _install(self) -> dict[str, str]:
        where = ["pip", "install", "--python", str(self.venv.python)]
        try:
            uv(f"installing {self.requirements.stem}", [*where, "--no-deps", "-r", str(self.lock)])
        except StepFailed:
            return self._install_one_by_one(where)
        return {}

    def _install_one_by_one(self, where: Sequence[str]) -> dict[str, str]:
        """Something cannot be had: the libraries that do not need it are tested all the same."""
        within = ["--override", str(OVERRIDES), "--constraint", str(self.lock), "-r", str(TOOLS)]
        left_out = {}
        for library in self.libraries:
            try:
                uv(f"installing {library.name} alone", [*where, *within, library.requirement])
            except StepFailed as failure:
                left_out[library.name] = " ".join(failure.output.split())[-300:]
        return left_out

    def _borrow_torch(self) -> None:
        """Link the project's PyTorch, and what it needs, where this environment looks last.

        Not all of the project's packages: GuideLLM would load vLLM too, if it found it.
        """
        if self.name != "guidellm":
            return
        borrowed = self.venv.venv / "borrowed"
        shutil.rmtree(borrowed, ignore_errors=True)
        borrowed.mkdir()
        for name in closure(["torch"], _requires):
            for entry in entries(name):
                link = borrowed / entry.name
                if not link.exists():
                    link.symlink_to(entry)
        [packages] = self.venv.venv.glob("lib/python*/site-packages")
        (packages / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")


def _requires(name: str) -> Sequence[str]:
    """What ``name`` requires; nothing if it is not in the project's environment."""
    try:
        return metadata.requires(name) or ()
    except metadata.PackageNotFoundError:
        return ()


def entries(name: str) -> set[Path]:
    """The files and folders of ``name`` in the project's environment, those that are imported."""
    try:
        files = metadata.files(name) or ()
    except metadata.PackageNotFoundError:
        return set()
    tops = {file.parts[0]: file for file in files if file.parts[0] not in {"..", "__pycache__"}}
    return {Path(str(file.locate())).parents[len(file.parts) - 1] / top for top, file in tops.items()}


def environments() -> list[ClientEnvironment]:
    """All of them, the current openai package's first."""
    return [ClientEnvironment(name) for name in ("current", "openai2", "guidellm")]


def uv(title: str, arguments: Sequence[str]) -> None:
    """Run uv, installed first if it is not there, as a step. Raises `SetupError`, or `StepFailed`."""
    home = Environment(VENVS / "uv")
    if not home.has("uv"):
        VENVS.mkdir(exist_ok=True)
        home.create()
        try:
            home.pip("installing uv", "install", UV)
        except StepFailed as failure:  # of the set-up itself: no library need be tried alone
            raise SetupError(str(failure)) from failure
    run_step(title, [str(home.python), "-m", "uv", *arguments], home.log)
