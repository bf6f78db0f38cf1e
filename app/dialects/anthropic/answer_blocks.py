"""Content blocks of one answer: its chunks, taken apart and put in order."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pydantic_core import from_json

from app.dialects.anthropic.signature import signature_of
from app.inference.answer import Answer
from engines.base import AnswerDelta, Chunk

_OF_CALLS = "call_"

BlockKind = Literal["text", "thinking", "tool_use"]


@dataclass(slots=True)
class AnswerBlock:
    """One block, as far as it came: ``pieces`` are its text, its thinking, or its input as JSON."""

    kind: BlockKind
    index: int
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class BlockPiece(NamedTuple):
    """A piece of a block; ``is_first``: the block begins with it."""

    block: AnswerBlock
    text: str
    is_first: bool = False


class AnswerBlocks:
    """The blocks of one answer. One begins where the kind of what comes changes, and with each call.

    Those of the kinds ``kept`` keep their pieces; of others nobody asks for them.
    """

    def __init__(self, kept: Collection[BlockKind] = ("text", "thinking", "tool_use")) -> None:
        self.all: list[AnswerBlock] = []
        self._kept = kept

    def feed(self, chunk: Chunk | AnswerDelta) -> Iterator[BlockPiece]:
        text = chunk.text if isinstance(chunk, Chunk) else chunk.content
        if chunk.reasoning:
            yield self._add("thinking", chunk.reasoning)
        if text:
            yield self._add("text", text)
        for call in chunk.tool_calls:
            if call.name is not None:
                call_id = f"toolu_{(call.id or '').removeprefix(_OF_CALLS)}"
                yield BlockPiece(self._begin("tool_use", call_id, call.name), "", is_first=True)
            if call.arguments:
                yield self._add("tool_use", call.arguments)

    @property
    def has_calls(self) -> bool:
        return any(block.kind == "tool_use" for block in self.all)

    def _add(self, kind: BlockKind, text: str) -> BlockPiece:
        last = self.all[-1] if self.all else None
        is_first = last is None or last.kind != kind
        block = self._begin(kind) if last is None or is_first else last
        if kind in self._kept:
            block.pieces.append(text)
        return BlockPiece(block, text, is_first)

    def _begin(self, kind: BlockKind, id: str = "", name: str = "") -> AnswerBlock:
        block = AnswerBlock(kind, len(self.all), id, name)
        self.all.append(block)
        return block


@dataclass(slots=True)
class MessageAnswer(Answer):
    """The one choice of a message, with its blocks."""

    blocks: AnswerBlocks = field(default_factory=AnswerBlocks)

    def add(self, chunk: Chunk) -> None:
        Answer.add(self, chunk)
        for _ in self.blocks.feed(chunk):
            pass


def document_of(block: AnswerBlock, *, tells_thinking: bool) -> dict[str, Any]:
    """A block that is whole."""
    if block.kind == "text":
        return {"type": "text", "text": block.text}
    if block.kind == "thinking":
        signature = signature_of(block.text, is_told=tells_thinking)
        told = block.text if tells_thinking else ""
        return {"type": "thinking", "thinking": told, "signature": signature}
    return {"type": "tool_use", "id": block.id, "name": block.name, "input": _input(block.text)}


def _input(arguments: str) -> dict[str, Any]:
    """The arguments of a call, as far as they came, read as clients read those of a stream."""
    try:
        found = from_json(arguments or "{}", allow_partial=True)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"arguments": arguments}
