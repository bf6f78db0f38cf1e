"""Gives a model in another quantisation, converting it in a child process if need be."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from engines.errors import ModelLoadError
from engines.machine.job_process import ChildDied, JobFailed, run_child
from engines.models.convert.cache import Kept
from engines.models.convert.plan import ConversionPlan, Quantizer
from engines.progress import Progress

logger = logging.getLogger("engines.models.convert")


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted model, ready to be loaded. ``made``: it was converted just now."""

    path: Path
    made: bool


async def ensure_converted(
    source: Path, quantization: str, quantizer: Quantizer, *, fallback_dir: Path, on_progress: Progress
) -> Converted:
    """``source`` in ``quantization``: itself, what was made of it before, or what is made now.

    ``quantization`` is one that ``quantizer`` knows. Results are kept in ``.enginehouse`` beside the model,
    or in ``fallback_dir`` where that cannot be. Raises `ModelLoadError`. Cancelling stops at once and
    leaves nothing. Calls for the same result wait for the first, also from several processes.
    """
    plan = await asyncio.to_thread(quantizer.plan, source, quantization, fallback_dir)
    if plan is None:
        return Converted(source, made=False)
    kept = Kept(plan.target)
    made = not kept.is_current(plan.stamp) and await _convert(plan, kept, on_progress)
    if not made:
        logger.info("%s: using the %s kept in %s", source.name, plan.name, plan.target)
    return Converted(plan.target, made)


async def _convert(plan: ConversionPlan, kept: Kept, on_progress: Progress) -> bool:
    """Convert; False if meanwhile another call did. Raises `ModelLoadError`."""
    if plan.degrades:
        logger.warning(
            "%s is quantised already: as %s it loses more quality than one made of the original weights",
            plan.source.name,
            plan.name,
        )
    started = time.monotonic()
    finished = False
    try:
        result = await run_child(
            "engines.models.convert.worker", plan.order, lambda message: on_progress(message["progress"])
        )
        finished = True
    except JobFailed as failure:
        raise ModelLoadError(failure.message) from failure
    except ChildDied as death:
        raise ModelLoadError(f"converting {plan.source.name} to {plan.name} failed: {death}") from death
    finally:
        if not finished:
            kept.clear()
    if result["made"]:
        seconds = time.monotonic() - started
        name, place = plan.source.name, plan.target
        logger.info("converted %s to %s in %.1f s, kept in %s", name, plan.name, seconds, place)
    return bool(result["made"])
