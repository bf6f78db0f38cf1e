"""Echo: the fields of a request that its response tells again, all of them always."""

from __future__ import annotations

from typing import Any

from app.dialects.openai.responses.schema import ResponseRequest, SchemaFormat
from app.dialects.openai.responses.tools import CustomTool, FunctionTool, NamespaceTool, ResponseChoice

# What a format is made of besides.
_DUMPED: Any = {"by_alias": True, "exclude_none": True}


def echo_of(body: ResponseRequest) -> dict[str, Any]:
    """These fields of ``body``, in which the model's defaults are filled in."""
    reasoning = body.reasoning
    return {
        "background": False,
        "frequency_penalty": body.frequency_penalty,
        "instructions": body.instructions,
        "max_output_tokens": body.limit,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "presence_penalty": body.presence_penalty,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {
            "effort": body.effort,
            "summary": reasoning.summary if reasoning is not None else None,
        },
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": body.store,
        "temperature": body.temperature,
        "text": {"format": _format(body), "verbosity": "medium"},
        "tool_choice": _choice(body.tool_choice),
        "tools": [_tool(tool) for tool in body.tools or () if not isinstance(tool, dict)],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": "disabled",
        "user": body.user if isinstance(body.user, str) else None,
    }


def _format(body: ResponseRequest) -> dict[str, Any]:
    format = body.text.format if body.text is not None else None
    if format is None:
        return {"type": "text"}
    told: dict[str, Any] = format.model_dump(**_DUMPED)
    if isinstance(format, SchemaFormat):
        return {"description": None, "strict": False, **told}
    return told


def _choice(choice: str | ResponseChoice | None) -> Any:
    if isinstance(choice, ResponseChoice):
        return choice.model_dump(exclude_none=True)
    return choice or "auto"


def _tool(tool: FunctionTool | CustomTool | NamespaceTool) -> dict[str, Any]:
    if isinstance(tool, NamespaceTool):
        members = [_tool(member) for member in tool.tools]
        head: dict[str, Any] = {"type": tool.type, "name": tool.name, "description": tool.description or ""}
        return {**head, "tools": members}
    head = {"type": tool.type, "name": tool.name, "description": tool.description}
    if isinstance(tool, FunctionTool):
        return {**head, "parameters": tool.parameters, "strict": tool.strict is True}
    format = tool.format.model_dump(exclude_none=True) if tool.format is not None else {"type": "text"}
    return {**head, "format": format}
