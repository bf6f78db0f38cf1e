"""Claims: which of the servers that share a folder for state runs a job, and whether it still lives."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

from engines.machine.locks import Locked, locked


class RunnerClaim:
    """This server's name among those that share ``folder``, for as long as it lives.

    The kernel lets go of a lock when its holder dies, however that happens.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = ExitStack()
        self.name = uuid4().hex

    def take(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._held.enter_context(locked(self._path(self.name), wait=False))

    def release(self) -> None:
        self._held.close()

    def is_alive(self, name: str) -> bool:
        """Whether the server of that ``name`` still lives."""
        if name == self.name:
            return True
        try:
            with locked(self._path(name), wait=False):
                return False
        except Locked:
            return True

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"


def place_of(folder: Path) -> str:
    """The name of a folder for state, wherever it is mounted; given at the first use."""
    file = folder / "place"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(folder / "place.lock", wait=True):
            if not file.exists():
                part = file.with_suffix(".part")
                part.write_text(uuid4().hex, encoding="utf-8")
                part.replace(file)
    return file.read_text(encoding="utf-8").strip()
