"""The cache of conversions: a file or folder each, and a stamp beside it that tells its origin."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engines.machine.locks import Locked, locked


class Kept:
    """One converted model. All but `is_current` and `clear` need it to be `held`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.part = target.with_name(f"{target.name}.part")
        self._stamp = target.with_name(f"{target.name}.json")
        self._lock = target.with_name(f"{target.name}.lock")

    def is_current(self, stamp: Mapping[str, Any]) -> bool:
        """Whether the conversion is there and was made with ``stamp``."""
        try:
            return self.target.exists() and bool(json.loads(self._stamp.read_bytes()) == stamp)
        except (OSError, ValueError):
            return False

    @contextmanager
    def held(self, *, wait: bool = True) -> Iterator[None]:
        """Keep all others out, waiting for them first, and remove what one left that was killed.

        Raises `Locked` without ``wait``.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._lock, wait=wait):
            _remove(self.part)
            yield

    def install(self, stamp: Mapping[str, Any]) -> None:
        """Put what is in ``part`` into place. An engine that has the former one open keeps it."""
        self._stamp.unlink(missing_ok=True)
        _remove(self.target)
        self.part.rename(self.target)
        unfinished = self._stamp.with_suffix(".new")
        unfinished.write_text(json.dumps(stamp))
        os.replace(unfinished, self._stamp)

    def clear(self) -> None:
        """Remove the leavings of a conversion that failed or was killed, unless another is at work now."""
        with suppress(Locked, OSError), self.held(wait=False):
            pass  # holding it removes what is left
        with suppress(OSError):  # it stays if there is something in it
            self.target.parent.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
