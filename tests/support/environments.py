"""A virtual environment whose pip only takes notes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

from scripts.setup.environment import Environment

Command = tuple[str, ...]


class FakeEnvironment(Environment):
    """``commands`` are what pip was asked for; ``effect`` is called with each, and may raise."""

    def __init__(
        self, venv: Path, present: Collection[str] = (), effect: Callable[[Command], None] | None = None
    ) -> None:
        super().__init__(venv)
        self.commands: list[Command] = []
        self.statuses: list[int] = []  # of what is tried out; 0 at their end
        self.flags: list[str] = []  # for the C compiler, at each command of pip
        self._present = present
        self._effect = effect

    def create(self) -> None:
        self.venv.mkdir(exist_ok=True)

    def pip(self, title: str, *args: str) -> None:
        self.commands.append(args)
        self.flags.append(os.environ.get("CFLAGS", ""))
        if self._effect is not None:
            self._effect(args)

    def status_of(self, code: str) -> int:
        return self.statuses.pop(0) if self.statuses else 0

    def has(self, distribution: str) -> bool:
        return distribution in self._present
