"""Progress of long work: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from app.cli.common import err
from app.cli.text import duration_text, size_text

# Without a terminal, so many lines from the start of something to its end.
LINES = 10


@dataclass(frozen=True, slots=True)
class Step:
    """A phase of the work, the part of it that is done (0..1, None if unknown), and more in words."""

    what: str
    done: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        percent = "" if self.done is None else f"{self.done:.0%}"
        return f"{self.what} {percent} {self.detail}".replace("  ", " ").rstrip()


class Bar:
    """Shows steps on standard error; nothing before the first one. Used as a context manager."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._last = Step("")

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def show(self, step: Step) -> None:
        if err.is_terminal and not err.is_dumb_terminal:
            self._draw(step)
        elif self._is_news(step):
            err.print(str(step), markup=False)
            self._last = step

    def clear(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _draw(self, step: Step) -> None:
        if self._progress is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"))
            self._progress = Progress(*columns, console=err, transient=True)
            self._task = self._progress.add_task("", total=None, detail="")
        percent = "" if step.done is None else f"{step.done:4.0%}  "
        self._progress.update(
            self._task,
            description=escape(step.what),
            total=None if step.done is None else 1.0,
            completed=step.done or 0.0,
            detail=escape(percent + step.detail),
        )
        self._progress.start()  # does nothing once it runs

    def _is_news(self, step: Step) -> bool:
        if step.what != self._last.what or step.done is None or self._last.done is None:
            return (step.what, step.done) != (self._last.what, self._last.done)
        return int(step.done * LINES) > int(self._last.done * LINES)


def download_step(name: str, download: Mapping[str, Any]) -> Step:
    """A pull, as `app.schemas.models.Download` tells of it."""
    what = f"{download['status']} {name}"
    completed, total = download["completed"], download["total"]
    if not total:
        return Step(what)
    parts = [f"{size_text(completed)} of {size_text(total)}"]
    if download["speed"]:
        parts.append(f"{size_text(download['speed'])}/s")
    return Step(what, completed / total, "  ".join([*parts, *_left(download["eta_seconds"])]))


def load_step(report: Mapping[str, Any]) -> Step | None:
    """A model that is wanted, as `app.schemas.models.ModelReport` tells of it; None once it is there."""
    name, loading, download = report["id"], report["loading"], report["download"]
    if loading is not None:
        return Step(f"{loading['phase']} {name}", loading["progress"], "".join(_left(loading["eta_seconds"])))
    if download is not None:
        return download_step(name, download)
    return Step(f"waiting for room for {name}") if report["state"] == "stopped" else None


def unload_step(report: Mapping[str, Any]) -> Step | None:
    """A model that is to go."""
    if report["state"] != "draining":
        return None
    requests = report["requests"]
    return Step(f"draining {report['id']}", detail=f"requests that still run: {requests}" if requests else "")


def _left(eta: float | None) -> list[str]:
    return [] if eta is None else [f"{duration_text(eta)} left"]
