"""``python -m benchmarks.soak``: load and unload models over and over; what is left behind is a leak.

A real server loads a model, answers a short chat and unloads it, and its memory, threads, children, open
files and shared memory are noted. Exit status 1 if any of them grew.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.cases import cycles
from benchmarks.cases.engines import MODULES, installed, own_server
from benchmarks.harness import memory
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.harness.servers import Bench

CYCLES = {"llama_cpp": 50, "mlx": 50, "vllm": 5}
# Caches fill in the first cycles; what comes after must not add up.
SETTLED = 5
MOST_GROWTH = 1.05
# asyncio's pool of threads has one more whenever more of its calls coincide than ever before.
SLACK = {"threads": 2}
# How often, and how far apart in seconds, it is looked at what is left.
LOOKS = 3
LOOK_PAUSE = 0.1
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Residue:
    """What a server holds while no model is loaded: MiB resident and counts, its children included."""

    resident: float
    threads: int
    children: int
    files: int
    shared: int


def residue(pid: int) -> Residue:
    """The least of a few looks: a server that looks after its models opens a file now and then."""
    looks = [_look(pid)]
    for _ in range(LOOKS - 1):
        time.sleep(LOOK_PAUSE)
        looks.append(_look(pid))
    least = {name: min(getattr(look, name) for look in looks) for name in Residue.__slots__}
    return Residue(**least)


def _look(pid: int) -> Residue:
    process = psutil.Process(pid)
    children = process.children(recursive=True)
    family = [process, *children]
    return Residue(
        resident=sum(each.memory_info().rss for each in family) / memory.MIB,
        threads=sum(each.num_threads() for each in family),
        children=len(children),
        files=sum(each.num_fds() for each in family),
        shared=len(list(SHARED_MEMORY.iterdir())) if SHARED_MEMORY.is_dir() else 0,
    )


def soak(
    server: BenchServer, count: int, tell: Callable[[int, cycles.Cycle, Residue], None]
) -> list[Residue]:
    """Load and unload ``count`` times; ``tell`` is called after each. Raises `BenchError`."""
    name = server.model()
    cycles.unload(server, name)  # it was loaded at the start
    left = []
    for number in range(1, count + 1):
        times = cycles.cycle(server, name)
        left.append(residue(server.pid))
        tell(number, times, left[-1])
    return left


def misses(left: Sequence[Residue]) -> list[str]:
    """What grew from the cycle when all has settled to the last, in words."""
    before, after = left[settled(len(left)) - 1], left[-1]
    found = []
    if after.resident > MOST_GROWTH * before.resident:
        found.append(f"resident memory grew from {before.resident:.0f} to {after.resident:.0f} MiB")
    for name in ("threads", "children", "files", "shared"):
        was, now = getattr(before, name), getattr(after, name)
        if now > was + SLACK.get(name, 0):
            found.append(f"{name} grew from {was} to {now}")
    return found


def settled(count: int) -> int:
    """The cycle that the last one of ``count`` is compared with."""
    return SETTLED if count >= 2 * SETTLED else 1


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers must end too
    out = args.out.resolve() if args.out else Path(tempfile.mkdtemp(prefix="enginehouse-soak-"))
    bench = Bench(out=out, model=args.model, folder=args.folder)
    missed = [f"{engine}: {miss}" for engine in args.engines for miss in _run(bench, engine, args.cycles)]
    print("\n".join(missed) or "nothing grew")
    return 1 if missed else 0


def _run(bench: Bench, engine: str, count: int | None) -> list[str]:
    total = count or CYCLES[engine]
    print(f"\n{engine}, {total} cycles\n\n| Cycle | Load, s | Chat, s | Unload, s | Resident, MiB | ", end="")
    print("Threads | Children | Open files | /dev/shm |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    try:
        with own_server(bench, engine) as server:
            return misses(soak(server, total, _print_row))
    except (BenchError, httpx.HTTPError) as error:
        return [str(error)]


def _print_row(number: int, times: cycles.Cycle, left: Residue) -> None:
    seconds = f"{times.load:.2f} | {times.chat:.2f} | {times.unload:.2f}"
    counts = f"{left.threads} | {left.children} | {left.files} | {left.shared}"
    print(f"| {number} | {seconds} | {left.resident:.1f} | {counts} |", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    add = parser.add_argument
    add("--engines", type=_engines, default=installed(), help="by comma; default: all that are installed")
    add("--cycles", type=_count, help=f"for each engine; default: {CYCLES}")
    add("--model", type=Path, help="GGUF file; default: the bundled model requantised to Q4_0")
    add("--folder", type=Path, help="model in Hugging Face's format; default: made of the bundled one")
    add("--out", type=Path, help="folder for the servers' logs; default: a new temporary one")
    return parser


def _engines(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(MODULES):
        raise argparse.ArgumentTypeError(f"no such engine: {', '.join(sorted(unknown))}")
    return names


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError("it takes 2 or more to compare")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
