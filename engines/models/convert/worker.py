"""The process that converts: it may take all the memory it wants, crash, or be killed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from engines.machine.job_process import JobFailed, Message, Send, serve_job
from engines.models.convert.cache import Kept
from engines.registry import ENGINES


def convert(order: Message, send: Send) -> Message:
    """Do what a `ConversionPlan.order` says. Raises `JobFailed`."""
    os.nice(10)  # models that answer requests come first
    kept = Kept(Path(order["target"]))
    quantizer = ENGINES[order["engine"]].quantizer
    assert quantizer is not None
    try:
        with kept.held():
            if kept.is_current(order["stamp"]):  # another process made it while we waited
                return {"made": False}
            quantizer.run(order, kept.part, send)
            kept.install(order["stamp"])
    except OSError as error:
        raise _explain(error, kept.target) from error
    send({"progress": 1.0})
    return {"made": True}


def _explain(error: OSError, target: Path) -> JobFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return JobFailed(f"the disk of {target.parent} is full: make room and load the model again")
    return JobFailed(f"the converted model cannot be written: {error}")


if __name__ == "__main__":
    serve_job(convert)
