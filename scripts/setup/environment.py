"""A virtual environment, and pip in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from scripts.setup.errors import SetupError
from scripts.setup.steps import run_step

NO_VENV = """\
Could not create a virtual environment in {venv}.
On Debian and Ubuntu: sudo apt-get install python3-venv"""


class Environment:
    """The virtual environment in the folder ``venv``."""

    def __init__(self, venv: Path) -> None:
        self.venv = venv

    @property
    def python(self) -> Path:
        return self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def log(self) -> Path:
        """What pip and the compiler print."""
        return self.venv / "setup.log"

    def create(self) -> None:
        """Create it unless it is there, and begin a new log. Raises `SetupError`."""
        if not self.python.exists():
            print(f"creating a virtual environment in {self.venv}", flush=True)
            made = subprocess.run([sys.executable, "-m", "venv", str(self.venv)], check=False)
            if made.returncode != 0:
                raise SetupError(NO_VENV.format(venv=self.venv))
        self.log.write_text("", encoding="utf-8")

    def pip(self, title: str, *args: str) -> None:
        """Run pip as a step. Raises `StepFailed`."""
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", "--no-input", *args]
        run_step(title, command, self.log)

    def has(self, distribution: str) -> bool:
        """Whether ``distribution`` is installed."""
        if not self.python.exists():
            return False
        code = f"import importlib.metadata as m; m.version({distribution!r})"
        found = subprocess.run([str(self.python), "-c", code], check=False, stderr=subprocess.DEVNULL)
        return found.returncode == 0

    def status_of(self, code: str) -> int:
        """The exit status of ``code`` in this environment's Python: negative for a signal."""
        with self.log.open("a", encoding="utf-8") as log:
            done = subprocess.run([str(self.python), "-c", code], check=False, stdout=log, stderr=log)
        return done.returncode
