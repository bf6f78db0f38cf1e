"""Writer of Anthropic's messages: the document, and the events of a stream."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from app.dialects.anthropic.answer_blocks import (
    AnswerBlock,
    AnswerBlocks,
    BlockKind,
    MessageAnswer,
    document_of,
)
from app.dialects.anthropic.signature import signature_of
from app.inference.answer import Answer
from app.inference.dialect import AnswerContext
from app.inference.task import Task
from app.sse import sse, to_json
from engines.base import Chunk, FinishReason, Usage

_DELTAS = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}
_INPUT = ("input_json_delta", "partial_json")
_DELTA_END = b"}}\n\n"
_STOP = sse({"type": "message_stop"}, "message_stop")


class MessageWriter:
    """Events and documents of one task (`AnswerWriter`)."""

    def __init__(self, task: Task, context: AnswerContext) -> None:
        begun = context.resume_point
        self.created = int(time.time()) if begun is None else begun.created
        self._opens = begun is None
        self._tells_thinking = task.tell_reasoning
        self._most_tokens = task.max_tokens
        self._prompt_tokens = len(context.prompts[0].token_ids)
        self._head = {
            "id": f"msg_{context.answer_id.removeprefix('req_')}",
            "type": "message",
            "role": "assistant",
            "model": task.target.name,
        }
        kept: list[BlockKind] = [] if task.tell_reasoning else ["thinking"]
        self._blocks = AnswerBlocks(kept)
        self._open: AnswerBlock | None = None
        self._frame = b""  # in front of the text of a delta of the open block
        self._finish_reason: FinishReason | None = None
        self._stop = ""
        for part in context.begun:
            for piece in self._blocks.feed(part):
                self._set_open(piece.block)

    # -- streams -----------------------------------------------------------------------------------

    def opening(self, index: int) -> bytes:
        if not self._opens:
            return b""
        usage = _usage(Usage(self._prompt_tokens, 0))
        message: dict[str, Any] = {
            **self._head,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return sse({"type": "message_start", "message": message}, "message_start")

    def write(self, index: int, chunk: Chunk) -> bytes:
        data = b""
        for block, text, is_first in self._blocks.feed(chunk):
            if is_first:
                data += self._close() + self._begin(block)
            if text and (block.kind != "thinking" or self._tells_thinking):
                data += self._frame + to_json(text) + _DELTA_END
        if chunk.finish_reason is not None:
            self._finish_reason, self._stop = chunk.finish_reason, chunk.stop
            data += self._close()
        return data

    def closing(self, usage: Usage) -> bytes:
        reason, stop = self._end(self._blocks, self._finish_reason, self._stop, usage)
        delta = {"stop_reason": reason, "stop_sequence": stop}
        return sse({"type": "message_delta", "delta": delta, "usage": _usage(usage)}, "message_delta") + _STOP

    # -- documents ---------------------------------------------------------------------------------

    def answers(self) -> Sequence[Answer]:
        return [MessageAnswer()]

    def document(self, answers: Sequence[Answer], usage: Usage) -> dict[str, Any]:
        (answer,) = answers
        assert isinstance(answer, MessageAnswer)
        reason, stop = self._end(answer.blocks, answer.finish_reason, answer.stop, usage)
        content = [document_of(block, tells_thinking=self._tells_thinking) for block in answer.blocks.all]
        ended = {"stop_reason": reason, "stop_sequence": stop, "usage": _usage(usage)}
        return {**self._head, "content": content, **ended}

    # ----------------------------------------------------------------------------------------------

    def _begin(self, block: AnswerBlock) -> bytes:
        self._set_open(block)
        match block.kind:
            case "text":
                begun: dict[str, Any] = {"type": "text", "text": ""}
            case "thinking":
                begun = {"type": "thinking", "thinking": "", "signature": ""}
            case _:
                begun = {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}
        event = {"type": "content_block_start", "index": block.index, "content_block": begun}
        return sse(event, "content_block_start")

    def _set_open(self, block: AnswerBlock) -> None:
        self._open = block
        kind, name = _DELTAS.get(block.kind, _INPUT)
        event = {"type": "content_block_delta", "index": block.index, "delta": {"type": kind, name: ""}}
        self._frame = sse(event, "content_block_delta").removesuffix(b'""' + _DELTA_END)

    def _close(self) -> bytes:
        block, self._open = self._open, None
        if block is None:
            return b""
        signed = b""
        if block.kind == "thinking":
            signature = signature_of(block.text, is_told=self._tells_thinking)
            delta = {"type": "signature_delta", "signature": signature}
            event = {"type": "content_block_delta", "index": block.index, "delta": delta}
            signed = sse(event, "content_block_delta")
        return signed + sse({"type": "content_block_stop", "index": block.index}, "content_block_stop")

    def _end(
        self, blocks: AnswerBlocks, finish_reason: str | None, stop: str, usage: Usage
    ) -> tuple[str, str | None]:
        """Why the answer ended, and the stop string that ended it."""
        if finish_reason == "length":
            is_full = self._most_tokens is not None and usage.completion_tokens < self._most_tokens
            return "model_context_window_exceeded" if is_full else "max_tokens", None
        if stop:
            return "stop_sequence", stop
        # Also where a call was forced, of which engines say that the answer just ended.
        return "tool_use" if blocks.has_calls else "end_turn", None


def _usage(usage: Usage) -> dict[str, Any]:
    """Tokens of the prompt that came from the prefix cache are counted apart from the others."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }
