"""Prompts: the token ids that a task's messages or texts become on an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.inference.task import Task
from engines.base import EngineInfo, Generates, Media, Prompt
from engines.errors import ContextLengthExceeded


async def prompts_of(task: Task, engine: Generates, media: Sequence[Media] = ()) -> list[Prompt]:
    """The prompts of a task, rendered and tokenised; token ids are taken as they are. ``media`` are what
    `Task.media` refers to."""
    if task.messages is not None:
        tools = task.tools.definitions if task.tools is not None else None
        rendering = task.rendering
        return [await engine.render_chat(task.messages, tools=tools, rendering=rendering, media=media)]
    prompts: list[Prompt] = []
    for item in task.prompts:
        if task.suffix is not None:
            prompts.append(await engine.render_infill(item, task.suffix, task.files))
        elif isinstance(item, str):
            prompts.append(Prompt(await engine.tokenize(item, add_special=task.add_special), item))
        else:
            prompts.append(Prompt(item, await engine.detokenize(item) if task.echo else None))
    return prompts


@contextmanager
def told_of(task: Task, info: EngineInfo) -> Iterator[None]:
    """Within it, a prompt that is too long is told in the words of the request that ``task`` was."""
    try:
        yield
    except ContextLengthExceeded as error:
        raise error.told("prompt" if task.messages is None else "messages", longer(info)) from None


def longer(info: EngineInfo) -> str:
    """How the model gets a longer context, if it can have one."""
    if info.context_length >= info.longest_context:
        return ""
    return (
        f", or load the model with a longer context: it can have up to {info.longest_context} tokens "
        "(CONTEXT_LENGTH, or context_length in models.yaml)"
    )
