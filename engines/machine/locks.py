"""A lock between processes: a file that is locked while work goes on, and removed after it.

`filelock` would leave its file behind in people's model folders, so this is our own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# How often, in seconds, a lock is tried that the system cannot wait for.
TRY_AGAIN = 0.1

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, wait: bool) -> None:
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                return
            except OSError as error:
                if not wait:
                    raise BlockingIOError from error
                time.sleep(TRY_AGAIN)

else:
    import fcntl

    def _lock(descriptor: int, wait: bool) -> None:
        """Raises `BlockingIOError` if another has it and ``wait`` is false."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


class Locked(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock ``path``. Without ``wait`` raises `Locked` if another has it.

    The kernel lets go of it when its holder dies, so a file that was left behind locks nobody out.
    """
    descriptor = _acquire(path, wait)
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows does not remove files that are open
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, wait: bool) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            _lock(descriptor, wait)
            if _is_still(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise Locked(str(path)) from None
        except BaseException:
            os.close(descriptor)
            raise
        # Its former holder removed the file while we waited: lock the new one.
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
