"""One request on its way through MLX's engine thread."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from engines.base import GenerationRequest
from engines.batching.sequence import Sequence
from engines.stream import ChunkStream
from engines.text.answers.output import Output
from engines.text.grammar import TokenMask

if TYPE_CHECKING:
    from engines.mlx.adapters import MlxAdapter


class MlxSequence(Sequence):
    """A sequence and its place in the batch: ``uid`` is the batch's name for it while it is in there.

    ``adapter`` is the LoRA adapter that it is computed with (`engines.mlx.adapters.MlxAdapter`).
    """

    __slots__ = ("adapter", "is_prefilling", "uid")

    def __init__(
        self,
        request: GenerationRequest,
        stream: ChunkStream,
        output: Output,
        limit: int,
        adapter: MlxAdapter | None = None,
    ) -> None:
        super().__init__(request, stream, output, limit)
        self.adapter = adapter
        self.is_prefilling = True
        self.uid: Hashable | None = None

    @property
    def next_mask(self) -> TokenMask | None:
        """None: the batch tells ``mask`` of each token before it is delivered (`engines.mlx.masks`)."""
        return None
