"""Memory of a process and its children, in bytes, counted in three ways."""

from __future__ import annotations

import psutil

MIB = 2**20


def resident(pid: int) -> int:
    """Resident bytes; pages that the processes share count once for each."""
    return sum(process.memory_info().rss for process in _family(pid))


def proportional(pid: int) -> int:
    """Resident bytes, pages that the processes share counted once.

    Only Linux can tell; elsewhere they count once for each.
    """
    infos = [process.memory_full_info() for process in _family(pid)]
    return sum(getattr(info, "pss", info.rss) for info in infos)


def unique(pid: int) -> int:
    """Bytes that only these processes have in memory."""
    return sum(process.memory_full_info().uss for process in _family(pid))


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]
