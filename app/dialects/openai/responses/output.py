"""Output of a response: the items that the parts of an answer are, as they come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from app.dialects.openai.events import token_logprob
from app.dialects.openai.responses.custom_input import CustomInput
from app.dialects.openai.responses.reasoning import sealed
from app.dialects.openai.responses.tools import ShownTool, Toolbox
from engines.base import AnswerDelta, Chunk, TokenLogprob, ToolCallDelta

ItemKind = Literal["reasoning", "message", "function_call", "custom_tool_call"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]

_PREFIXES: dict[ItemKind, str] = {
    "reasoning": "rs",
    "message": "msg",
    "function_call": "fc",
    "custom_tool_call": "ctc",
}


@dataclass(slots=True)
class OutputItem:
    """One item, as far as it came. ``text`` is what its parts make: content, reasoning, arguments, input."""

    kind: ItemKind
    id: str
    index: int
    call_id: str = ""
    tool: ShownTool | None = None
    parts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    input: CustomInput | None = None
    is_sealed: bool = False

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def part(self, text: str) -> dict[str, Any]:
        """The content part of a message or of reasoning."""
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        logprobs = [token_logprob(entry) for entry in self.logprobs] if text else []
        return {"type": "output_text", "annotations": [], "logprobs": logprobs, "text": text}

    def told(self, status: ItemStatus) -> dict[str, Any]:
        """The item as clients get it; empty while it is in progress."""
        begun = status == "in_progress"
        head = {"id": self.id, "type": self.kind, "status": status}
        text = "" if begun else self.text
        if self.kind == "message":
            return {**head, "role": "assistant", "content": [] if begun else [self.part(text)]}
        if self.kind == "reasoning":
            seal = {"encrypted_content": sealed(text)} if self.is_sealed and not begun else {}
            return {**head, "summary": [], "content": [] if begun else [self.part(text)], **seal}
        assert self.tool is not None
        words = "arguments" if self.kind == "function_call" else "input"
        return {**head, "call_id": self.call_id, **self.tool.own_names, words: text}


class OutputListener(Protocol):
    """Whoever is told what happens to the output of a response."""

    def opened(self, item: OutputItem) -> None: ...

    def went_on(self, item: OutputItem, text: str, logprobs: tuple[TokenLogprob, ...]) -> None: ...

    def closed(self, item: OutputItem, status: ItemStatus) -> None: ...


class ResponseOutput:
    """The output of one answer. At most its last item is open.

    With a ``raw`` tool in the box, content is that tool's input.
    """

    def __init__(
        self,
        answer: str,
        toolbox: Toolbox,
        listener: OutputListener,
        *,
        reasons: bool = True,
        seals: bool = False,
    ) -> None:
        """``reasons``: reasoning is told, and with ``seals`` for clients that keep only what is sealed."""
        self._answer = answer
        self._toolbox = toolbox
        self._listener = listener
        self._reasons = reasons
        self._seals = seals
        self._items: list[tuple[OutputItem, ItemStatus]] = []
        self._open: OutputItem | None = None

    @property
    def items(self) -> list[dict[str, Any]]:
        """All items that are closed, as clients get them."""
        return [item.told(status) for item, status in self._items]

    def add(self, chunk: Chunk) -> None:
        """Take in a chunk of the answer; the last one closes the output."""
        calls = chunk.tool_calls
        while calls and calls[0].name is None:  # of a call before anything else in this chunk
            self._call(calls[0])
            calls = calls[1:]
        if chunk.reasoning and self._reasons:
            self._write("reasoning", chunk.reasoning)
        if chunk.text or chunk.logprobs:
            self._say(chunk.text, chunk.logprobs)
        for delta in calls:
            self._call(delta)
        if chunk.finish_reason is not None:
            if self._open is None and not self._items:
                self._begin("message")  # an answer of nothing is an empty text
            self._end("incomplete" if chunk.finish_reason == "length" else "completed")

    def begin_with(self, begun: AnswerDelta) -> None:
        """Take in the beginning of the answer, which was told before."""
        listener, self._listener = self._listener, Unheard()
        self.add(Chunk(text=begun.content, reasoning=begun.reasoning, tool_calls=begun.tool_calls))
        self._listener = listener

    def _say(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
        raw = self._toolbox.raw
        if raw is not None and (self._open is None or self._open.kind != "custom_tool_call"):
            self._begin("custom_tool_call", raw, f"call_{self._answer}")
        self._write("message" if raw is None else "custom_tool_call", text, logprobs)

    def _write(self, kind: ItemKind, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> None:
        item = self._open
        if item is None or item.kind != kind:
            item = self._begin(kind)
        item.parts.append(text)
        if logprobs:
            item.logprobs += logprobs
        self._listener.went_on(item, text, logprobs)

    def _call(self, delta: ToolCallDelta) -> None:
        if delta.name is not None:
            tool = self._toolbox.offered(delta.name)
            kind: ItemKind = "function_call" if tool.kind == "function" else "custom_tool_call"
            item = self._begin(kind, tool, delta.id or "")
            item.input = CustomInput() if tool.kind == "custom" else None
        called = self._open
        if called is None or called.tool is None or not delta.arguments:
            return
        text = delta.arguments if called.input is None else called.input.feed(delta.arguments)
        if text:
            self._write(called.kind, text)

    def _begin(self, kind: ItemKind, tool: ShownTool | None = None, call_id: str = "") -> OutputItem:
        self._end("completed")
        index = len(self._items)
        name = f"{_PREFIXES[kind]}_{self._answer}_{index}"
        item = self._open = OutputItem(kind, name, index, call_id, tool, is_sealed=self._seals)
        self._listener.opened(item)
        return item

    def _end(self, status: ItemStatus) -> None:
        item, self._open = self._open, None
        if item is None:
            return
        if item.input is not None and (rest := item.input.finish()):
            item.parts.append(rest)
            self._listener.went_on(item, rest, ())
        self._items.append((item, status))
        self._listener.closed(item, status)


class Unheard:
    """An `OutputListener` that nothing is told to."""

    def opened(self, item: OutputItem) -> None:
        pass

    def went_on(self, item: OutputItem, text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
        pass

    def closed(self, item: OutputItem, status: ItemStatus) -> None:
        pass
