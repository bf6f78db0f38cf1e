"""The memory budget of models: what the machine has, and what the settings allow of it."""

from __future__ import annotations

import re
import shutil
import subprocess

from engines.machine.child_environment import child_environment
from engines.machine.footprint import Footprint
from engines.machine.platform import Facts

# Of main memory, unless the settings say otherwise: the rest is for the system, clients and this server.
DEFAULT_SHARE = 0.8

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def budget(facts: Facts, *, max_memory: str = "auto", gpu_share: float = DEFAULT_SHARE) -> Footprint:
    """The memory that models may take together. On Apple silicon the GPU's memory is main memory."""
    ram = (
        int(facts.memory_total * DEFAULT_SHARE)
        if max_memory == "auto"
        else parse_memory(max_memory, facts.memory_total)
    )
    gpu = int(gpu_memory_total() * gpu_share) if facts.cuda else 0
    return Footprint(ram=ram, gpu=gpu)


def parse_memory(text: str, total: int) -> int:
    """Bytes from a share of ``total`` (``0.8``) or a size (``24GB``, ``512MiB``). Raises `ValueError`.

    A bare number up to 1 is a share, a larger one is bytes; GB are 1000³ and GiB 1024³.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is no amount of memory: write a share such as 0.8, or a size such as 24GB"
        )
    number, unit, binary = float(match[1]), match[2].upper(), bool(match[3])
    if not unit and not binary and number <= 1 and not text.strip().upper().endswith("B"):
        size = number * total
    else:
        size = number * (1024 if binary else 1000) ** _POWERS[unit]
    if size < 1:
        raise ValueError(f"{text!r} leaves no memory at all")
    return int(size)


def gpu_memory_total() -> int:
    """Bytes of all visible NVIDIA GPUs together; 0 if there is none or it cannot be told."""
    return sum(total for total, _ in _gpu_memory())


def gpu_memory_used() -> int:
    """Bytes in use on all visible NVIDIA GPUs, by anyone."""
    return sum(used for _, used in _gpu_memory())


def _gpu_memory() -> list[tuple[int, int]]:
    """Total and used bytes of each GPU, from NVML, else from the driver's tool."""
    try:
        return _from_nvml()
    except Exception:  # not installed, no driver, or one that does not match
        return _from_nvidia_smi()


def _from_nvml() -> list[tuple[int, int]]:
    import pynvml

    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        infos = [pynvml.nvmlDeviceGetMemoryInfo(handle) for handle in handles]
        return [(int(info.total), int(info.used)) for info in infos]
    finally:
        pynvml.nvmlShutdown()


def _from_nvidia_smi() -> list[tuple[int, int]]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=memory.total,memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True, env=child_environment()
        )
        rows = [line.split(",") for line in done.stdout.splitlines() if line.strip()]
        return [(int(total) * 2**20, int(used) * 2**20) for total, used in rows]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
