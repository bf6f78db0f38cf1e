"""Resumable answers: those that another backend can go on with once one broke them off."""

from __future__ import annotations

from app.inference.task import Task
from engines.errors import UnsupportedFeature


def is_resumable(task: Task) -> bool:
    """Whether another backend may be able to go on with the answer from its tokens alone.

    Whether it can, of an answer with parts or of some form, only the engine knows (`Generates.can_resume`).
    """
    return task.stream and task.n == 1 and len(task.prompts) <= 1 and task.logprobs is None


def cannot_resume() -> UnsupportedFeature:
    return UnsupportedFeature(
        "an answer of this form cannot be resumed by another backend", param="continuation"
    )
