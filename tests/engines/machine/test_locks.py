"""The lock between processes; separate opens of a file exclude each other in one process too."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engines.machine.locks import Locked, locked


def test_a_second_holder_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock, wait=False):
        with pytest.raises(Locked):
            with locked(lock, wait=False):
                pytest.fail("both hold it")
    assert not lock.exists()


def test_a_file_that_was_left_behind_locks_nobody_out(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    with locked(lock, wait=False):
        assert lock.exists()


def test_waiting_ends_with_a_lock_that_excludes_others(tmp_path: Path) -> None:
    """The first holder removes the file: who waited for it must not hold the removed one."""
    lock = tmp_path / "lock"
    held, finish = threading.Event(), threading.Event()

    def second() -> None:
        with locked(lock, wait=True):
            held.set()
            finish.wait(10)

    with locked(lock, wait=False):
        waiter = threading.Thread(target=second)
        waiter.start()
        assert not held.wait(0.1)
    assert held.wait(10)
    with pytest.raises(Locked):
        with locked(lock, wait=False):
            pytest.fail("both hold it")
    finish.set()
    waiter.join()
    assert not lock.exists()


def test_an_error_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        with locked(tmp_path / "lock", wait=False):
            raise ZeroDivisionError
    with locked(tmp_path / "lock", wait=False):
        pass
