"""Parser of responses: a request's JSON to a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.dialects.openai.responses.echo import echo_of
from app.dialects.openai.responses.items import CustomCallItem, FunctionCallItem
from app.dialects.openai.responses.messages import ItemHistory
from app.dialects.openai.responses.refusals import refuse_in_response
from app.dialects.openai.responses.schema import ResponseRequest, SchemaFormat
from app.dialects.openai.responses.tools import ShownTool, Toolbox, toolbox
from app.dialects.openai.sampling import check_min_tokens, with_defaults
from app.dialects.openai.structure import exclusive, of_response_format, of_structured_outputs, only_one
from app.dialects.openai.tools import check_arguments
from app.inference.dialect import Resolve
from app.inference.task import Task
from app.schemas.unknown_fields import read_body
from engines.base import Structure
from engines.errors import RequestError
from engines.limits import no_chat_template
from engines.text.answers.tool_use import json_schema

_LOGPROBS = "message.output_text.logprobs"
_REASONING = "reasoning.encrypted_content"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseTask(Task):
    """A request for a response: ``repeated`` are the fields of the request that the response tells again, and
    ``toolbox`` what the model's calls mean. ``seals``: reasoning is told in `encrypted_content` too."""

    repeated: Mapping[str, Any] = field(default_factory=dict)
    toolbox: Toolbox = field(default_factory=Toolbox)
    seals: bool = False


def parse(document: Any, resolve: Resolve) -> ResponseTask:
    """Raises pydantic's `ValidationError`, or `EngineError` for what cannot be met."""
    body, unknown = read_body(ResponseRequest, document)
    refuse_in_response(body)
    check_arguments(_arguments(body))
    resolved = resolve(body.model)
    resolved.check_purpose("text")
    if not resolved.can_chat:  # before it is loaded, for which another model may have to go
        raise no_chat_template(resolved.target.model)
    if body.effort is not None:
        body.reasoning_effort = body.effort
    body, defaults = with_defaults(body, resolved.sampling)
    check_min_tokens(body, body.limit)
    body.check_lists(1)
    box = toolbox(body.tools, body.tool_choice, parallel=body.parallel_tool_calls is not False)
    structure, asked_in = _structure(body, box)
    conversation = _conversation(body, box)
    messages = conversation.whole()
    include = body.include or ()
    needs = {
        **body.needs(),
        "tools": "tools" if box.use is not None else None,
        "structured": asked_in,
        "adapters": "model" if resolved.target.adapter is not None else None,
        **conversation.media.needs,
    }
    return ResponseTask(
        target=resolved.target,
        messages=messages,
        media=conversation.media.references,
        rendering=body.rendering(messages),
        tell_reasoning=body.include_reasoning,
        sampling=body.sampling(),
        max_tokens=body.limit,
        min_tokens=body.min_tokens,
        stop=body.stops,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        include_stop=body.include_stop_str_in_output,
        show_special=not body.skip_special_tokens,
        ignore_eos=body.ignore_eos,
        logprobs=(body.top_logprobs or 0) if body.top_logprobs or _LOGPROBS in include else None,
        tools=box.use,
        structure=structure,
        needs={capability: param for capability, param in needs.items() if param is not None},
        stream=body.stream,
        priority=body.priority,
        keep_alive=body.keep_alive,
        defaults=_as_response_fields(defaults),
        unknown=(*unknown, *conversation.skipped),
        repeated=echo_of(body),
        toolbox=box,
        seals=_REASONING in include,
    )


def _structure(body: ResponseRequest, box: Toolbox) -> tuple[Structure | None, str | None]:
    """The one structure of content there can be, and the field that needs structured output."""
    forced = box.raw is not None or (box.use is not None and box.use.is_forced)
    asked = {
        # A format is about content, of which a forced call has none.
        "text.format": None if forced else _of_format(body),
        "structured_outputs": of_structured_outputs(body.structured_outputs),
        **body.structures(),
    }
    found = only_one(asked)
    if forced and found is not None:
        raise exclusive(found[1], "tool_choice")
    if box.raw is not None:
        return box.raw.form, "tool_choice"
    return found or (None, "tool_choice" if forced else None)


def _of_format(body: ResponseRequest) -> Structure | None:
    format = body.text.format if body.text is not None else None
    if isinstance(format, SchemaFormat):
        return json_schema(format.schema_, strict=format.strict is True)
    return of_response_format(format)


def _conversation(body: ResponseRequest, box: Toolbox) -> ItemHistory:
    conversation = ItemHistory(box)
    if body.instructions:
        conversation.instruct(body.instructions)
    if box.raw is not None:
        conversation.instruct(_only_input_of(box.raw))
    conversation.add(body.input if body.input is not None else [])
    if not conversation.messages or (body.input is None and body.previous_response_id is None):
        raise RequestError("give an `input`: a text, or items", param="input")
    return conversation


def _only_input_of(tool: ShownTool) -> str:
    """The instruction that makes an answer the input of ``tool``, whose grammar holds it to its form."""
    told = tool.definition["function"].get("description", "")
    return f"Answer with the input for the tool {tool.name}, and with nothing else.\n\n{told}".strip()


def _as_response_fields(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """``defaults`` as this API names them."""
    return {"max_output_tokens" if n == "max_tokens" else n: value for n, value in defaults.items()}


def _arguments(body: ResponseRequest) -> Iterator[tuple[str, str]]:
    for index, item in enumerate(body.input if isinstance(body.input, list) else ()):
        if isinstance(item, FunctionCallItem):
            yield item.arguments, f"input.{index}.arguments"
        elif isinstance(item, CustomCallItem):
            yield item.input, f"input.{index}.input"
