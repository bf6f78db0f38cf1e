"""Messages of Anthropic's API as chat templates take them: one role, text, calls and results each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from app.dialects.anthropic.blocks import (
    AssistantMessage,
    ContentSource,
    DocumentBlock,
    ImageBlock,
    Message,
    SearchResultBlock,
    SystemMessage,
    TextBlock,
    ThinkingBlock,
    ToolChange,
    ToolReference,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
    UserMessage,
)
from app.dialects.anthropic.normalised import normalised
from app.dialects.anthropic.signature import reasoning_of
from app.inference.media import MediaList
from engines.errors import UnsupportedFeature

Part = dict[str, Any]
ChatMessage = dict[str, Any]
_ERROR = "Error: "
_SAYS_SO = ("error", "<tool_use_error>")


def chat_messages(
    system: str | Sequence[TextBlock] | None, messages: Sequence[Message], media: MediaList
) -> tuple[ChatMessage, ...]:
    """The conversation; ``media`` collects its images. Turns of one role that follow each other are one."""
    found: list[ChatMessage] = []
    if text := _system_text(system or ""):
        found.append({"role": "system", "content": text})
    for i, message in enumerate(messages):
        for turn in _turns(message, f"messages.{i}", media):
            if found and _is_same_turn(found[-1], turn):
                found[-1] = _joined(found[-1], turn)
            else:
                found.append(turn)
    return tuple(found)


def referenced_tools(messages: Iterable[Message]) -> dict[str, bool]:
    """The tools that messages name: whether they may be called from there on."""
    found: dict[str, bool] = {}
    for message in messages:
        for block in message.content if isinstance(message.content, list) else ():
            if isinstance(block, ToolChange):
                found[block.tool.name] = block.type == "tool_addition"
            elif isinstance(block, ToolResultBlock) and isinstance(block.content, list):
                found |= {each.tool_name: True for each in block.content if isinstance(each, ToolReference)}
    return found


def _system_text(content: str | Sequence[TextBlock]) -> str:
    texts = [content] if isinstance(content, str) else [block.text for block in content]
    return "\n".join(text for text in map(normalised, texts) if text)


def _turns(message: Message, where: str, media: MediaList) -> Iterator[ChatMessage]:
    match message:
        case SystemMessage(content=content):
            blocks = content if isinstance(content, str) else [b for b in content if isinstance(b, TextBlock)]
            if text := _system_text(blocks):
                yield {"role": "system", "content": text}
        case AssistantMessage(content=content):
            yield _of_assistant(content)
        case UserMessage(content=content):
            yield from _of_user(content, f"{where}.content", media)


def _of_assistant(content: str | Sequence[Any]) -> ChatMessage:
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    texts = [block.text for block in content if isinstance(block, TextBlock)]
    calls = [_call(block) for block in content if isinstance(block, ToolUseBlock)]
    thought = "".join(
        reasoning_of(block.thinking, block.signature) for block in content if isinstance(block, ThinkingBlock)
    )
    # Blocks of an answer are pieces of one text. Templates tell an answer that only calls tools by its null.
    message: ChatMessage = {"role": "assistant", "content": "".join(texts) or (None if calls else "")}
    if calls:
        message["tool_calls"] = calls
    if thought:
        # Templates read it under either name.
        message["reasoning_content"] = message["reasoning"] = thought
    return message


def _call(block: ToolUseBlock) -> dict[str, Any]:
    function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
    return {"id": block.id, "type": "function", "function": function}


def _of_user(content: str | Sequence[Any], where: str, media: MediaList) -> Iterator[ChatMessage]:
    """The results of calls first, which belong right behind the calls, then what else the user says."""
    if isinstance(content, str):
        yield {"role": "user", "content": content}
        return
    said: list[Part] = []
    has_results = False
    for i, block in enumerate(content):
        place = f"{where}.{i}"
        if not isinstance(block, ToolResultBlock):
            said += _parts(block, place, media)
            continue
        has_results = True
        texts, images = _result(block, place, media)
        yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": texts}
        if images:
            said += [_text(f"Images in the result of {block.tool_use_id}:"), *images]
    if said or not has_results:
        yield {"role": "user", "content": _content(said)}


def _result(block: ToolResultBlock, where: str, media: MediaList) -> tuple[str, list[Part]]:
    """The text of a result, and its images: templates show those in a user's message only."""
    parts = [_text(block.content)] if isinstance(block.content, str) else []
    if isinstance(block.content, list):
        for i, each in enumerate(block.content):
            parts += _parts(each, f"{where}.content.{i}", media)
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    if block.is_error and not text.lstrip()[:24].lower().startswith(_SAYS_SO):
        text = _ERROR + text
    return text, [part for part in parts if part["type"] != "text"]


def _parts(block: Any, where: str, media: MediaList) -> list[Part]:
    match block:
        case ImageBlock():
            return [_image(block, where, media)]
        case DocumentBlock():
            return _document(block, where, media)
        case SearchResultBlock():
            _refuse_citations(block, where)
            texts = "\n".join(each.text for each in block.content)
            return [
                _text(
                    f"<search_result title={_quoted(block.title)} source={_quoted(block.source)}>"
                    f"\n{texts}\n</search_result>"
                )
            ]
        case ToolReference():
            return [_text(f"The tool {block.tool_name} may be called now.")]
        case _:
            return [_text(block.text)]


def _image(block: ImageBlock, where: str, media: MediaList) -> Part:
    source = block.source
    if isinstance(source, UrlSource):
        return media.image(source.url, f"{where}.source.url")
    return media.image(f"data:{source.media_type};base64,{source.data}", f"{where}.source.data")


def _document(block: DocumentBlock, where: str, media: MediaList) -> list[Part]:
    _refuse_citations(block, where)
    title = f" title={_quoted(block.title)}" if block.title else ""
    context = f"{block.context}\n" if block.context else ""
    opening, closing = f"<document{title}>\n{context}", "\n</document>"
    source = block.source
    if not isinstance(source, ContentSource):
        return [_text(f"{opening}{source.data}{closing}")]
    if isinstance(source.content, str):
        return [_text(f"{opening}{source.content}{closing}")]
    inner = [
        part
        for i, each in enumerate(source.content)
        for part in _parts(each, f"{where}.source.content.{i}", media)
    ]
    return [_text(opening.rstrip("\n")), *inner, _text(closing.lstrip("\n"))]


def _refuse_citations(block: DocumentBlock | SearchResultBlock, where: str) -> None:
    if block.citations is not None and block.citations.enabled:
        raise UnsupportedFeature(
            "citations are not supported: leave `citations` out", param=f"{where}.citations"
        )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _content(parts: Sequence[Part]) -> str | list[Part]:
    """One string, unless there are media in it. Blocks are paragraphs: clients put notes beside what a user
    wrote."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return list(parts)


def _is_same_turn(before: ChatMessage, turn: ChatMessage) -> bool:
    return before["role"] == turn["role"] and turn["role"] in ("user", "assistant")


def _joined(before: ChatMessage, turn: ChatMessage) -> ChatMessage:
    if turn["role"] == "user":
        return {"role": "user", "content": _content([*_as_parts(before), *_as_parts(turn)])}
    joined = {**before, **turn, "content": (before["content"] or "") + (turn["content"] or "") or None}
    if calls := [*before.get("tool_calls", ()), *turn.get("tool_calls", ())]:
        joined["tool_calls"] = calls
    else:
        joined["content"] = joined["content"] or ""
    return joined


def _as_parts(message: ChatMessage) -> list[Part]:
    content = message["content"]
    return [_text(content)] if isinstance(content, str) else content
