"""The last chunks of the fake engine's answers."""

from __future__ import annotations

from engines.base import Chunk, FinishReason, GenerationRequest, Usage
from engines.text.answers.assembler import Released
from engines.text.answers.output import Output, finish_of


def last_chunk(
    released: Released,
    output: Output,
    token_ids: tuple[int, ...],
    reason: FinishReason,
    request: GenerationRequest,
    generated: int,
) -> Chunk:
    """The chunk that ends an answer of ``generated`` tokens with ``released``."""
    usage = Usage(len(request.prompt.token_ids), generated, reasoning_tokens=output.reasoning_tokens)
    return released.chunk(token_ids, finish_of(reason, output), usage)
