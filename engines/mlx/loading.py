"""Loading with MLX: for what a model is made for, or for what the catalog says."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from engines.base import Resident
from engines.batching.pooling import PoolingThread
from engines.batching.pooling_engine import PoolingEngine
from engines.batching.thread import Job, LoadGivenUp
from engines.errors import ModelLoadError
from engines.mlx import threads
from engines.mlx.engine import MlxEngine, imports_explained, reporter
from engines.mlx.folder import check_folder
from engines.models.facts import describe

if TYPE_CHECKING:
    from engines.load_spec import LoadSpec
    from engines.mlx.pooler import MlxPooler
    from engines.models.purpose import Pooling


async def load(spec: LoadSpec, progress: Callable[[float], None] | None = None) -> Resident:
    """As `MlxEngine.load`."""
    path, _ = check_folder(spec.path)
    facts = await asyncio.to_thread(describe, path)
    if spec.pooling is None and not facts.pools:
        return await MlxEngine.load(spec, progress)
    opening = _Opening(spec, spec.pooling or facts.pooling, progress, asyncio.get_running_loop())
    try:
        pooler = await opening.opened
    except asyncio.CancelledError:
        opening.give_up()
        raise
    thread = PoolingThread(pooler, asyncio.get_running_loop(), opening.run_next)
    return PoolingEngine(thread, pooler.info, pooler.vocabulary, spec.stall_timeout)


class _Opening:
    """The thread that opens a pooler and then pools: MLX ties arrays to threads."""

    def __init__(
        self,
        spec: LoadSpec,
        pooling: Pooling | None,
        progress: Callable[[float], None] | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.opened: asyncio.Future[MlxPooler] = loop.create_future()
        self._loop = loop
        self._stopping = threading.Event()
        self._next: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._ended = threads.run(lambda: self._run(spec, pooling, progress))

    def run_next(self, job: Job) -> threading.Event:
        """Run what pools; the event is set when it has ended."""
        self._next.put(job)
        return self._ended

    def give_up(self) -> None:
        """Nobody wants the model any more."""
        self._stopping.set()
        self._next.put(None)

    def _run(self, spec: LoadSpec, pooling: Pooling | None, progress: Callable[[float], None] | None) -> None:
        try:
            pooler = _open(spec, pooling, self._check_wanted, progress)
        except LoadGivenUp:
            return
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold the half-loaded model
            self._tell(error)
            return
        self._tell(pooler)
        job = self._next.get() or pooler.close
        del pooler
        job()

    def _check_wanted(self) -> None:
        if self._stopping.is_set():
            raise LoadGivenUp

    def _tell(self, result: MlxPooler | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and nobody is left to tell
            self._loop.call_soon_threadsafe(self._finish, result)

    def _finish(self, result: MlxPooler | Exception) -> None:
        if self.opened.done():
            return
        if not isinstance(result, Exception):
            self.opened.set_result(result)
            return
        is_ours = isinstance(result, ModelLoadError)
        self.opened.set_exception(result if is_ours else ModelLoadError(f"loading failed: {result!r}"))


def _open(
    spec: LoadSpec,
    pooling: Pooling | None,
    check: Callable[[], None],
    progress: Callable[[float], None] | None,
) -> MlxPooler:
    with imports_explained():
        from engines.mlx.pooler import open_pooler
    return open_pooler(spec, pooling, reporter(spec, check, progress))
