"""Embeddings: the task that asks for vectors, and its run on an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from app.inference import capabilities
from app.inference.dialect import Execution
from app.inference.pieces import PiecesBody
from app.inference.task import BaseTask
from balancer.call import Reply
from engines.base import Embeddings, Embeds, EngineInfo
from engines.errors import ContextLengthExceeded, RequestError, UnsupportedFeature
from engines.vectors import shorten

CAPABILITY = "embeddings"

# Texts that are tokenised between two looks at other requests.
STEP = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingTask(BaseTask):
    """A request for vectors of ``inputs``, each a text or its token ids.

    ``dimensions``: only so many numbers of each vector. ``most`` tokens of an input count, and -1 is as many
    as the model takes; None refuses inputs that are longer than that. ``as_base64``: as the bytes of 32-bit
    numbers, little end first.
    """

    inputs: tuple[str | tuple[int, ...], ...]
    add_special: bool = True
    dimensions: int | None = None
    most: int | None = None
    as_base64: bool = False

    def conversation(self) -> str:
        return ""  # nothing of a text that is pooled stays in a cache


WriteEmbeddings = Callable[[EmbeddingTask, Embeddings], Iterator[bytes]]
"""A dialect's way to write vectors: the pieces of a document, each quickly made."""


async def run(task: EmbeddingTask, write: WriteEmbeddings, execution: Execution) -> Reply:
    """The reply of an engine of this process to ``task``. Cancelling it drops the inputs."""
    record, info = execution.record, execution.resident.info
    capabilities.check({CAPABILITY: "model", **task.needs}, info)
    check_dimensions(task.dimensions, info)
    engine = cast(Embeds, execution.resident)
    inputs = await _token_ids(task, engine, info)
    try:
        embeddings = await engine.embed(inputs, request_id=execution.request.request_id)
    except ContextLengthExceeded as error:
        raise error.told(error.param or "input", LONG_INPUT) from None
    record.begin()
    record.prompt(sum(embeddings.prompt_tokens))
    if task.dimensions is not None and task.dimensions < embeddings.vectors.shape[1]:
        vectors = shorten(embeddings.vectors, task.dimensions)
        embeddings = Embeddings(vectors, embeddings.prompt_tokens)
    return Reply(200, [(b"content-type", b"application/json")], PiecesBody(write(task, embeddings)))


def check_dimensions(dimensions: int | None, info: EngineInfo) -> None:
    """Raise `RequestError` for vectors of a length that the model was not made for."""
    if dimensions is None or dimensions == info.embedding_length:
        return
    if not info.matryoshka:
        raise UnsupportedFeature(
            f"model {info.model} makes vectors of {info.embedding_length} numbers only: leave `dimensions` "
            "out, or say with `matryoshka` in models.yaml that it was made for shorter ones too",
            param="dimensions",
        )
    if dimensions > info.embedding_length:
        raise RequestError(
            f"vectors of model {info.model} have {info.embedding_length} numbers at most", param="dimensions"
        )
    if info.dimensions and dimensions not in info.dimensions:
        able = ", ".join(map(str, info.dimensions))
        raise RequestError(
            f"model {info.model} makes vectors of these lengths: {able}, {info.embedding_length}",
            param="dimensions",
        )


async def _token_ids(task: EmbeddingTask, engine: Embeds, info: EngineInfo) -> list[Sequence[int]]:
    most = task.most
    if most is not None:
        most = info.context_length if most < 0 else min(most, info.context_length)
    found: list[Sequence[int]] = []
    for index, item in enumerate(task.inputs):
        if index % STEP == STEP - 1:
            await asyncio.sleep(0)
        if isinstance(item, str):
            try:
                found.append(await engine.tokenize(item, add_special=task.add_special, most=most))
            except ContextLengthExceeded as error:
                raise error.told(f"input.{index}", LONG_INPUT) from None
        else:
            found.append(item if most is None else item[:most])
    return found


LONG_INPUT = ", or have it cut (`truncate_prompt_tokens`: -1)"
"""The other way out for an input that is too long."""
