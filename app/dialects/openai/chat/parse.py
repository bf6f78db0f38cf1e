"""Parser of chat completions: a request's JSON to a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.dialects.openai.chat.schema import ChatCompletionRequest, ContentPart, InputAudio, MediaUrl, Message
from app.dialects.openai.sampling import check_min_tokens, with_defaults
from app.dialects.openai.structure import exclusive, of_response_format, of_structured_outputs, only_one
from app.dialects.openai.tools import check_arguments, tool_use
from app.dialects.openai.unsupported import refuse_in_chat
from app.inference.dialect import Resolve
from app.inference.media import MediaList
from app.inference.task import Task
from app.schemas.unknown_fields import read_body
from engines.base import Structure, ToolUse
from engines.errors import RequestError
from engines.limits import no_chat_template

# What calls sent back have on top of what they are.
_OF_CLIENTS: Any = {"index": True, "function": {"parsed_arguments"}}


def parse(document: Any, resolve: Resolve) -> Task:
    """Raises pydantic's `ValidationError`, or `EngineError` for what cannot be met."""
    body, unknown = read_body(ChatCompletionRequest, document)
    refuse_in_chat(body)
    check_arguments(_arguments(body))
    resolved = resolve(body.model)
    resolved.check_purpose("text")
    if not resolved.can_chat:  # before it is loaded, for which another model may have to go
        raise no_chat_template(resolved.target.model)
    body, defaults = with_defaults(body, resolved.sampling)
    check_min_tokens(body, body.limit)
    body.check_lists(body.n)
    tools = tool_use(body.tools, body.tool_choice, parallel=body.parallel_tool_calls is not False)
    structure, asked_in = _structure(body, tools)
    media = MediaList()
    messages = tuple(_message(message, f"messages.{i}", media) for i, message in enumerate(body.messages))
    needs = {
        **body.needs(),
        **media.needs,
        "tools": "tools" if tools is not None else None,
        "structured": asked_in,
        "adapters": "model" if resolved.target.adapter is not None else None,
    }
    return Task(
        target=resolved.target,
        messages=messages,
        media=media.references,
        rendering=body.rendering(messages),
        tell_reasoning=body.include_reasoning,
        sampling=body.sampling(),
        n=body.n,
        max_tokens=body.limit,
        min_tokens=body.min_tokens,
        stop=body.stops,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        include_stop=body.include_stop_str_in_output,
        show_special=not body.skip_special_tokens,
        ignore_eos=body.ignore_eos,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        prompt_logprobs=body.prompt_logprobs,
        tools=tools,
        structure=structure,
        needs={capability: param for capability, param in needs.items() if param is not None},
        stream=body.stream,
        include_usage=body.include_usage,
        continuous_usage=body.continuous_usage,
        tell_token_ids=body.return_token_ids,
        tell_prompt_logprobs=body.prompt_logprobs is not None,
        priority=body.priority,
        keep_alive=body.keep_alive,
        defaults=defaults,
        unknown=unknown,
    )


def _structure(body: ChatCompletionRequest, tools: ToolUse | None) -> tuple[Structure | None, str | None]:
    """The one structure of content there can be, and the field that needs structured output."""
    forced = tools is not None and tools.is_forced
    # A response format is about content, of which a forced call has none.
    content = None if forced else of_response_format(body.response_format)
    asked = {
        "response_format": content,
        "structured_outputs": of_structured_outputs(body.structured_outputs),
        **body.structures(),
    }
    found = only_one(asked)
    if forced and found is not None:
        raise exclusive(found[1], "tool_choice")
    return found or (None, "tool_choice" if forced else None)


def _arguments(body: ChatCompletionRequest) -> Iterator[tuple[str, str]]:
    for i, message in enumerate(body.messages):
        for j, call in enumerate(message.tool_calls or ()):
            yield call.function.arguments, f"messages.{i}.tool_calls.{j}.function.arguments"


def _message(message: Message, where: str, media: MediaList) -> dict[str, Any]:
    # "developer" is OpenAI's newer word for "system"; templates know the older one.
    role = "system" if message.role == "developer" else message.role
    named = {"name": message.name} if message.name is not None else {}
    own = {**_of_assistant(message, where), **_of_tool(message, where)}
    return {"role": role, "content": _content(message, where, media), **named, **own}


def _content(message: Message, where: str, media: MediaList) -> str | list[dict[str, Any]] | None:
    content = message.content
    if content is None:
        if message.role != "assistant":
            raise RequestError(f"a message of role {message.role} needs content", param=f"{where}.content")
        # Templates tell an answer that only calls tools by its null.
        return message.refusal or (None if message.tool_calls else "")
    if isinstance(content, str):
        return content
    parts = [_part(part, f"{where}.content.{j}", media) for j, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _of_assistant(message: Message, where: str) -> dict[str, Any]:
    for name in ("tool_calls", "reasoning_content", "reasoning"):
        if getattr(message, name) and message.role != "assistant":
            raise RequestError(f"only an assistant's message has {name}", param=f"{where}.{name}")
    own: dict[str, Any] = {}
    if message.tool_calls:
        own["tool_calls"] = [call.model_dump(exclude=_OF_CLIENTS) for call in message.tool_calls]
    if reasoning := message.reasoning_content or message.reasoning:
        # Templates read it under either name.
        own["reasoning_content"] = own["reasoning"] = reasoning
    return own


def _of_tool(message: Message, where: str) -> dict[str, Any]:
    if message.role == "tool" and message.tool_call_id is None:
        raise RequestError("a tool's message says which call it answers", param=f"{where}.tool_call_id")
    return {"tool_call_id": message.tool_call_id} if message.role == "tool" else {}


def _part(part: ContentPart, where: str, media: MediaList) -> dict[str, Any]:
    """The part as templates are given it: text, or what stands for an image or a sound."""
    kind = part.type
    found = getattr(part, kind)
    if found is None:
        raise RequestError(f"a content part of type {kind} needs `{kind}`", param=where)
    place = f"{where}.{kind}"
    if isinstance(found, InputAudio):
        return media.audio(found.data, found.format, f"{place}.data")
    if kind in ("text", "refusal"):
        return {"type": "text", "text": found}
    url, place = (found.url, f"{place}.url") if isinstance(found, MediaUrl) else (found, place)
    return media.image(url, place) if kind == "image_url" else media.audio(url, "", place)
