"""Our code inside vLLM's EngineCore process: executors that end with their parent, and output to it.

vLLM's child outlives a parent that is killed, and writes to the parent's terminal. It unpickles the
executor class it is given before it does anything else; as ours live here, importing this module is
how our code gets to run in the child.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any

from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

OUTPUT_VARIABLE = "ENGINEHOUSE_VLLM_OUTPUT"
"""Names the pipe for the child's output; set in the child's environment only."""
GRACE_SECONDS = 5.0


class _Tethered:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        end_with_parent()  # while unpickling, the process did not know its parent yet
        super().__init__(*args, **kwargs)


class TetheredMultiprocExecutor(_Tethered, MultiprocExecutor):  # type: ignore[misc]
    """Workers are processes of their own; they inherit the pipe and end with the EngineCore."""


class TetheredUniProcExecutor(_Tethered, UniProcExecutor):  # type: ignore[misc]
    """The only worker runs in the EngineCore process."""


def tethered(executor_class: type[Any]) -> type[Any]:
    """Our version of vLLM's executor; any other class is returned as it is."""
    ours = {MultiprocExecutor: TetheredMultiprocExecutor, UniProcExecutor: TetheredUniProcExecutor}
    return ours.get(executor_class, executor_class)


def send_output(pipe: str | None) -> None:
    """Let stdout and stderr of this process, also of C++ libraries, go into a named pipe."""
    if not pipe:
        return
    descriptor = os.open(pipe, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def end_with_parent() -> None:
    """End this process when its parent does, however that ends."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        # vLLM ends its workers and shared memory on SIGTERM, but then hangs waiting for its peer. This
        # thread does not live to see that; the kernel's timer does.
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


if multiprocessing.current_process().name.startswith("EngineCore"):
    send_output(os.environ.get(OUTPUT_VARIABLE))
