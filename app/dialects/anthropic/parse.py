"""Parser of Anthropic's messages: a request's JSON to a task."""

from __future__ import annotations

from typing import Any

from app.dialects.anthropic.history import chat_messages, referenced_tools
from app.dialects.anthropic.schema import CountTokensRequest, MessagesRequest
from app.dialects.anthropic.tools import tool_use
from app.dialects.anthropic.unsupported import refuse
from app.dialects.openai.sampling import check_min_tokens, with_defaults
from app.inference.dialect import Resolve
from app.inference.media import MediaList
from app.inference.targets import Resolved
from app.inference.task import Task
from app.inference.tokens import TokensTask, tokens_of
from app.schemas.unknown_fields import UnknownField, read_body
from engines.base import Rendering, Structure
from engines.errors import RequestError
from engines.limits import no_chat_template
from engines.text.answers.tool_use import json_schema


def parse(document: Any, resolve: Resolve) -> Task:
    """Raises pydantic's `ValidationError`, or `EngineError` for what cannot be met."""
    body, unknown = read_body(MessagesRequest, document)
    resolved = _resolved(body, resolve)
    body, defaults = with_defaults(body, resolved.sampling)
    check_min_tokens(body, body.max_tokens)
    return _task(
        body,
        resolved,
        unknown,
        sampling=body.sampling(),
        max_tokens=body.max_tokens,
        min_tokens=body.min_tokens,
        stop=body.stops,
        ignore_eos=body.ignore_eos,
        stream=body.stream,
        defaults=defaults,
    )


def parse_count(document: Any, resolve: Resolve) -> TokensTask:
    """The tokens of the prompt that a message of the same body would have; so much may be in it."""
    if isinstance(document, dict) and document.get("max_tokens") is not None:
        known = MessagesRequest.model_fields.keys() - CountTokensRequest.model_fields.keys()
        document = {name: value for name, value in document.items() if name not in known}
    body, unknown = read_body(CountTokensRequest, document)
    return tokens_of(_task(body, _resolved(body, resolve), unknown))


def _resolved(body: CountTokensRequest, resolve: Resolve) -> Resolved:
    refuse(body)
    resolved = resolve(body.model)
    resolved.check_purpose("text")
    if not resolved.can_chat:  # before it is loaded, for which another model may have to go
        raise no_chat_template(resolved.target.model)
    return resolved


def _task(
    body: CountTokensRequest, resolved: Resolved, unknown: tuple[UnknownField, ...], **generated: Any
) -> Task:
    """``generated``: what says how an answer is generated."""
    media = MediaList()
    messages = chat_messages(body.system, body.messages, media)
    if not messages:
        raise RequestError("there is nothing to answer: no message has any text", param="messages")
    tools, skipped = tool_use(body.tools, body.tool_choice, referenced_tools(body.messages))
    forced = tools is not None and tools.is_forced
    structure, asked_in = _structure(body)
    if forced and structure is not None:
        raise RequestError(
            f"{asked_in} is about text, of which a forced call has none: leave it out, or let tool_choice be "
            "auto",
            param=asked_in,
        )
    needs = {
        "tools": "tools" if tools is not None else None,
        "structured": "tool_choice" if forced else asked_in,
        "adapters": "model" if resolved.target.adapter is not None else None,
        **media.needs,
    }
    return Task(
        target=resolved.target,
        messages=messages,
        media=media.references,
        rendering=_rendering(body, messages[-1]),
        tell_reasoning=body.thinking is None or body.thinking.display != "omitted",
        tools=tools,
        structure=structure,
        needs={capability: param for capability, param in needs.items() if param is not None},
        priority=body.priority,
        keep_alive=body.keep_alive,
        unknown=(*unknown, *skipped),
        **generated,
    )


def _structure(body: CountTokensRequest) -> tuple[Structure | None, str | None]:
    """The structure of the answer's text, and the field that asks for it."""
    config = body.output_config
    if config is not None and config.format is not None:
        return json_schema(config.format.schema_), "output_config.format"
    if body.output_format is not None:
        return json_schema(body.output_format.schema_), "output_format"
    return None, None


def _rendering(body: CountTokensRequest, last: dict[str, Any]) -> Rendering:
    """Clients send an effort with every request, so it is no fault of a model's to know none."""
    thinks = body.thinking is not None and body.thinking.type != "disabled"
    effort = body.output_config.effort if body.output_config is not None else None
    continues = last["role"] == "assistant" and bool(last["content"]) and not last.get("tool_calls")
    return Rendering(
        reasons=thinks,
        reasoning_effort=effort if thinks else None,
        must_take_effort=False,
        add_generation_prompt=not continues,
        continue_final=continues,
    )
