"""Spans of media in the tokens of one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engines.llamacpp.media.layout import MediaChunk, MediaLayout

Embeddings = npt.NDArray[np.float32]


class Span(NamedTuple):
    """The tokens from ``start`` to ``end`` of a sequence, which ``chunk`` takes."""

    start: int
    end: int
    chunk: MediaChunk
    embeddings: Embeddings


class Run(NamedTuple):
    """Tokens of one kind that follow each other: a span of media, or text up to the next one."""

    start: int
    end: int
    span: Span | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is computed in one piece: embeddings that see each other."""
        return self.span is not None and not self.span.chunk.causal


class Spans:
    """The spans of one sequence, in order."""

    def __init__(self, spans: Sequence[Span] = ()) -> None:
        self._spans = spans

    def __bool__(self) -> bool:
        return bool(self._spans)

    def run(self, index: int, length: int) -> Run:
        """The run that holds the token at ``index`` of a sequence of ``length`` tokens."""
        start = 0
        for span in self._spans:
            if index < span.start:
                return Run(start, span.start)
            if index < span.end:
                return Run(span.start, span.end, span)
            start = span.end
        return Run(start, length)

    def whole(self, length: int) -> int:
        """The most of the first ``length`` tokens that cuts no span."""
        if not self._spans:
            return length
        run = self.run(length, length + 1)
        return length if run.span is None else run.start

    def aligned(self, length: int, alignment: int) -> int:
        """The most of the first ``length`` tokens that ends a multiple of ``alignment`` behind the beginning
        of its run, or where one begins."""
        run = self.run(length, length + 1)
        return run.start if run.span is not None else length - (length - run.start) % alignment


NO_SPANS = Spans()


def spans_of(
    token_ids: Sequence[int], layouts: Sequence[MediaLayout], embeddings: Sequence[Sequence[Embeddings]]
) -> Spans:
    """The spans of a prompt with media of these ``layouts``, each with the ``embeddings`` of its chunks."""
    spans: list[Span] = []
    at = 0
    for layout, encoded in zip(layouts, embeddings, strict=True):
        for chunk, computed in zip(layout.chunks, encoded, strict=True):
            while token_ids[at] >= 0:
                at += 1
            spans.append(Span(at, at + chunk.size, chunk, computed))
            at += chunk.size
    return Spans(spans)
