"""Resumable answers: those that another backend can go on with once one broke them off."""

from __future__ import annotations

from app.inference.task import Task
from balancer.call import ResumePoint
from engines.errors import UnsupportedFeature
from engines.text.answer_reader import AnswerReader


def is_resumable(task: Task) -> bool:
    """Whether another backend can go on with the answer from its tokens alone.

    An answer with reasoning cannot be resumed either, but that only the engine knows.
    """
    return (
        task.stream
        and task.n == 1
        and len(task.prompts) <= 1
        and task.logprobs is None
        and task.tools is None
        and task.structure is None
    )


def refuse_readers(resume_point: ResumePoint | None, readers: list[AnswerReader]) -> None:
    """Raise `UnsupportedFeature` if ``readers`` would begin in the middle of an answer."""
    if resume_point is not None and readers:
        raise UnsupportedFeature("an answer with reasoning cannot be resumed by another backend")
