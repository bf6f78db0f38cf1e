"""What a process keeps of the memory it has freed."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A block below glibc's raised threshold lies in the arena of the thread that frees it.
CODE = """
import ctypes, os, sys, threading
from engines.machine import malloc

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def use(mib):
    block = libc.malloc(mib << 20)
    libc.memset(block, 1, mib << 20)
    libc.free(block)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

if sys.argv[1] == "bounded":
    malloc.keep_little_memory()
use(24)
before = resident()
thread = threading.Thread(target=use, args=(20,))
thread.start()
thread.join()
malloc.give_memory_back()
print(resident() - before)
"""


def growth(case: str) -> int:
    """MiB that are still resident after a thread has used and freed 20."""
    command = [sys.executable, "-c", CODE, case]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_a_thread_leaves_no_large_block_behind() -> None:
    assert growth("as it is") >= 16, "what is tested does not happen on this machine"
    assert growth("bounded") <= 4
