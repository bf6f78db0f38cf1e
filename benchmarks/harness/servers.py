"""This project's server as it is measured, and llama-server as its peer."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.settings import Settings
from benchmarks.harness import models as bundled
from benchmarks.harness.processes import START_TIMEOUT, BenchServer, running
from benchmarks.harness.report import SUBJECT

ROOT = Path(__file__).resolve().parents[2]
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Bench:
    """What the user chose. ``load_tool`` is an external load generator's command, or empty.

    ``model`` is a GGUF file, ``folder`` a model in Hugging Face's format; None stands for the bundled one.
    ``environments`` has those of peers that are Python programs; None: a folder in our own environment.
    """

    out: Path
    model: Path | None = None
    folder: Path | None = None
    peer: Path | None = None
    peer_threads: tuple[int, ...] = (1, 2)
    peer_args: tuple[str, ...] = ()
    environments: Path | None = None
    load_tool: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    ignore_eos: bool = True
    quick: bool = False

    @property
    def gguf(self) -> Path:
        """Raises `BenchError` if the bundled model is missing."""
        return self.model or bundled.gguf()

    @property
    def hf_folder(self) -> Path:
        """Raises `BenchError` if the bundled model is missing or cannot be converted."""
        return self.folder or bundled.folder()

    def kinds(self) -> list[int | None]:
        """Which servers to measure: None is the subject, a number the peer with so many threads."""
        return [None, *(self.peer_threads if self.peer else ())]

    def count(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Need:
    """What a case needs of a server: requests at once, and the tokens of its KV cache.

    With ``same_cache`` our server gets as many slots of as many tokens as the peer, otherwise it runs
    with its defaults. ``unified`` lets one of the peer's slots use all of the cache instead of an equal
    share.
    """

    connections: int = 8
    context: int = 8192
    unified: bool = False
    same_cache: bool = False
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def slots(self) -> int:
        return max(8, self.connections)

    def settings(self) -> dict[str, str]:
        """Our server's settings for this need."""
        if not self.same_cache:
            return dict(self.env)
        share = {"MAX_SEQUENCES": str(self.slots), "CONTEXT_LENGTH": str(self.context // self.slots)}
        return {**share, **self.env}


@contextmanager
def started(bench: Bench, kind: int | None, need: Need) -> Iterator[BenchServer]:
    """A fresh server of this kind. Raises `BenchError` if it does not start."""
    with subject(bench, need) if kind is None else peer(bench, kind, need) as server:
        yield server


@contextmanager
def subject(bench: Bench, need: Need, patience: float = START_TIMEOUT) -> Iterator[BenchServer]:
    """This project's server, as ``enginehouse serve`` runs it."""

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "app", "serve", "--host", "127.0.0.1", "--port", str(port)]

    settings = {"LOG_LEVEL": "WARNING", **bench.env, **need.settings()}
    if "DEFAULT_MODEL" not in settings:
        settings["DEFAULT_MODEL"] = str(bench.gguf)
    env = {**own_environment(), **settings}
    with running(SUBJECT, command, env, "/readyz", log_file(bench, SUBJECT), patience) as server:
        yield server


@contextmanager
def peer(bench: Bench, threads: int, need: Need) -> Iterator[BenchServer]:
    """llama-server with ``threads`` threads and at least eight slots."""
    binary = bench.peer
    assert binary is not None
    options = ["-np", str(need.slots), "-c", str(need.context), "-t", str(threads)]
    options += ["--kv-unified"] if need.unified else []

    def command(port: int) -> list[str]:
        place = ["--host", "127.0.0.1", "--port", str(port)]
        return [str(binary), "-m", str(bench.gguf), *place, *options, *bench.peer_args]

    log = log_file(bench, f"peer-t{threads}")
    with running(f"-t {threads}", command, libraries_of(binary), "/health", log) as server:
        yield server


def libraries_of(binary: Path) -> dict[str, str]:
    """The environment in which ``binary`` finds the libraries beside it."""
    folders = (str(binary.parent), os.environ.get("LD_LIBRARY_PATH"))
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders))}


def own_environment() -> dict[str, str]:
    """The environment without settings of this project, in which its modules can be found."""
    names = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in names}
    return kept | {"PYTHONPATH": str(ROOT)}


def log_file(bench: Bench, name: str) -> Path:
    """A new one for each server that is started."""
    return bench.out / "logs" / f"{next(_numbers):03d}-{name}.log"
