"""Pulls of models, each in a child process: the parent's side."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engines.errors import EngineError
from engines.machine.job_process import ChildDied, JobFailed, Message, run_child
from engines.models.facts import peek
from engines.models.pull.sources import CREDENTIALS

logger = logging.getLogger("engines.models.pull")

SourceName = Literal["huggingface", "modelscope"]
PullStatus = Literal["resolving", "downloading", "verifying", "done"]


class PullRefused(EngineError):
    """The model could be pulled, but not be served here; nothing was downloaded."""


class PullError(EngineError):
    """The pull failed; the message says what to do. ``retryable``: trying again later may help."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class PullRequest:
    """A download: a repository, and the folder for it.

    ``revision`` is a branch, tag or commit, None the default branch. ``include`` are patterns such as
    ``*Q8_0.gguf``; without any, what can be served is chosen: in ``quantization``, if one is named.

    ``unusable`` says of formats why no engine here runs them, and ``largest`` how many bytes there is memory
    for: what is beyond that is refused before it is downloaded.
    """

    repo: str
    source: SourceName
    target: Path
    revision: str | None = None
    include: tuple[str, ...] = ()
    quantization: str | None = None
    unusable: Mapping[str, str] = field(default_factory=dict, compare=False)
    largest: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class PullProgress:
    """Progress of a pull: bytes of all files together, ``speed`` in bytes a second, smoothed.

    ``completed`` starts anew with each status. ``file`` is the one that moved last.
    """

    status: PullStatus
    file: str | None = None
    completed: int = 0
    total: int | None = None
    speed: float = 0.0
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PulledModel:
    """A folder that is complete; ``size`` in bytes of the pulled ``files``, which are relative to it."""

    path: Path
    size: int
    files: tuple[str, ...]


class Puller:
    """Runs pulls. Two of the same target at a time are refused, also from different processes."""

    def __init__(self, *, backoff: float = 0.5) -> None:
        """``backoff``: seconds before the first retry of a lost connection; doubles with each."""
        self._backoff = backoff

    async def pull(self, request: PullRequest, on_progress: Callable[[PullProgress], None]) -> PulledModel:
        """Download, verify and move into place. Raises `PullError` and `PullRefused`.

        Cancelling stops at once. What arrived is kept, here as after an error, and the next pull of the
        target goes on from there.
        """
        started = time.monotonic()

        def receive(message: Message) -> None:
            if "notice" in message:
                logger.info("%s: %s", request.repo, message["notice"])
            else:
                on_progress(PullProgress(**message["progress"]))

        try:
            order = self._order(request)
            result = await run_child("engines.models.pull.worker", order, receive, needs=CREDENTIALS)
        except JobFailed as failure:
            raise PullError(failure.message, retryable=failure.retryable) from failure
        except ChildDied as death:
            message = f"the download of {request.repo} broke off ({death}): pull again to continue it"
            raise PullError(message, retryable=True) from death
        if "refused" in result:
            raise PullRefused(result["refused"])
        model = PulledModel(request.target, result["size"], tuple(result["files"]))
        # Whoever lists models now finds their headers read, beside the event loop.
        await asyncio.to_thread(_peek, model)
        seconds = time.monotonic() - started
        logger.info("pulled %s into %s: %d bytes in %.1f s", request.repo, model.path, model.size, seconds)
        return model

    def _order(self, request: PullRequest) -> Message:
        return {
            "repo": request.repo,
            "source": request.source,
            "target": str(request.target.absolute()),
            "revision": request.revision,
            "include": request.include,
            "quantization": request.quantization,
            "unusable": dict(request.unusable),
            "largest": request.largest,
            "backoff": self._backoff,
        }


def _peek(model: PulledModel) -> None:
    for path in (model.path, *(model.path / file for file in model.files if file.endswith(".gguf"))):
        peek(path)
