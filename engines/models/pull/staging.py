"""Staging of downloads in ``.NAME.incomplete``, beside the folder that is made once all files are there."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from engines.machine.job_process import JobFailed
from engines.machine.locks import Locked, locked
from engines.models.pull.sources import RemoteFile

MARGIN = 128 * 2**20  # bytes of the disk that are left free


class Staging:
    """Partial files of one target. They have names of their own, so that no hub chooses any here."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._folder = target.parent / f".{target.name}.incomplete"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep other pulls of the target out. Raises `JobFailed`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self._folder / "lock", wait=False):
                yield
                shutil.rmtree(self._folder)
        except Locked:
            raise JobFailed(f"another pull into {self._target} runs: wait for it or cancel it") from None
        finally:
            with suppress(OSError):  # it stays if there is something in it
                self._folder.rmdir()

    def part(self, file: RemoteFile) -> Path:
        """Where ``file`` is downloaded to; another version of it goes elsewhere."""
        version = file.sha256 or file.git_sha1 or file.url
        key = hashlib.sha256(f"{file.path}\0{version}".encode()).hexdigest()
        return self._folder / f"{key[:32]}.part"

    def installed(self, file: RemoteFile) -> Path:
        return self._target / file.path

    def drop_others(self, files: Sequence[RemoteFile]) -> None:
        """Remove what earlier pulls left that is not part of these files."""
        wanted = {self.part(file).name for file in files}
        for path in self._folder.glob("*.part"):
            if path.name not in wanted:
                path.unlink()

    def downloaded(self, file: RemoteFile) -> int:
        """Bytes of ``file`` that are downloaded already."""
        part = self.part(file)
        return part.stat().st_size if part.exists() else 0

    def check_space(self, needed: int) -> None:
        """Raise `JobFailed` unless ``needed`` more bytes fit."""
        free = shutil.disk_usage(self._folder).free
        if needed + MARGIN > free:
            raise JobFailed(
                f"the download needs {_gigabytes(needed + MARGIN)} but the disk of {self._target.parent} has "
                f"{_gigabytes(free)} free: remove something or move MODEL_BASE_PATH"
            )

    def publish(self, files: Sequence[RemoteFile]) -> None:
        """Move the complete files to where they belong; a new folder appears with all of them at once."""
        tree = self._folder / "tree"
        if tree.exists():  # of a pull that was killed in here: what it had moved is downloaded again
            shutil.rmtree(tree)
        fresh = not self._target.exists()
        root = tree if fresh else self._target
        # Backwards, so that the files by which models are found (config.json, part 1) come late.
        for file in sorted(files, key=lambda file: file.path, reverse=True):
            place = root / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.part(file), place)
        if fresh:
            tree.rename(self._target)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
