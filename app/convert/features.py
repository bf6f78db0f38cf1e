"""What a request wants that not every engine has, and whether the engine has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.convert.structure import of_response_format, of_structured_outputs
from app.convert.tools import ToolUse, tool_use
from app.schemas.chat import ChatCompletionRequest
from app.schemas.completions import CompletionRequest
from engines.base import EngineInfo, Structure
from engines.errors import RequestError, UnsupportedFeature

_FEATURES = {"tools": "tool calling", "structured": "structured output", "adapters": "LoRA adapters"}
_ENGINES = {"llama_cpp": "llama.cpp", "mlx": "MLX", "vllm": "vLLM", "fake": "the fake engine"}
# vLLM can do it, but has not been told how for this model.
_VLLM_HELP = {
    "tools": "vLLM knows no parser for its calls of tools: name one in models/models.yaml, such as "
    "`options: {tool_call_parser: hermes}`",
    "adapters": "it was loaded without adapters: load it again with those of models/models.yaml",
}


@dataclass(frozen=True, slots=True)
class Features:
    """``needs`` pairs a capability of the engine with the field that asks for it."""

    tools: ToolUse | None = None
    structure: Structure | None = None
    adapter: str | None = None
    needs: Mapping[str, str] = field(default_factory=dict)


def chat_features(body: ChatCompletionRequest, adapter: str | None) -> Features:
    """Raises `RequestError` for wishes that cannot be met, or not together."""
    tools = tool_use(body)
    structure, asked_in = _chat_structure(body, tools)
    tools_in = "tools" if tools is not None else _earlier_call(body)
    return Features(tools, structure, adapter, _needs(tools_in, asked_in, adapter))


def completion_features(body: CompletionRequest, adapter: str | None) -> Features:
    structure = of_structured_outputs(body.structured_outputs)
    asked_in = "structured_outputs" if structure is not None else None
    return Features(None, structure, adapter, _needs(None, asked_in, adapter))


def check(features: Features, engine: EngineInfo) -> None:
    """Raise `UnsupportedFeature` for what ``engine`` cannot do: it is never ignored."""
    for capability, param in features.needs.items():
        if capability not in engine.capabilities:
            raise UnsupportedFeature(_refusal(capability, engine), param=param)


def _needs(tools_in: str | None, structure_in: str | None, adapter: str | None) -> dict[str, str]:
    fields = {"tools": tools_in, "structured": structure_in, "adapters": adapter and "model"}
    return {capability: field for capability, field in fields.items() if field is not None}


def _chat_structure(
    body: ChatCompletionRequest, tools: ToolUse | None
) -> tuple[Structure, str] | tuple[None, None]:
    """The one structure there can be, and the field that asks for it."""
    asked = {
        "response_format": of_response_format(body.response_format),
        "structured_outputs": of_structured_outputs(body.structured_outputs),
        "tool_choice": tools.structure() if tools is not None else None,
    }
    found = [(structure, name) for name, structure in asked.items() if structure is not None]
    if asked["tool_choice"] is not None and asked["response_format"] is not None:
        del found[0]  # a response format is about content, of which a forced call has none
    if not found:
        return None, None
    structure, name = found[0]
    if len(found) > 1:
        raise RequestError(f"{name} and {found[1][1]} exclude each other", param=name)
    if tools is not None and not tools.is_forced:
        raise UnsupportedFeature(
            f"{name} together with tools that the model may call is not supported yet: leave one of them "
            "out, or force a call with tool_choice",
            param=name,
        )
    return structure, name


def _earlier_call(body: ChatCompletionRequest) -> str | None:
    """The first message that has to do with tools."""
    for index, message in enumerate(body.messages):
        if message.tool_calls or message.role == "tool":
            return f"messages.{index}"
    return None


def _refusal(capability: str, engine: EngineInfo) -> str:
    feature = _FEATURES[capability]
    if engine.engine == "vllm":
        return f"model {engine.model} has no {feature}: {_VLLM_HELP.get(capability, 'vLLM lacks it here')}"
    name = _ENGINES.get(engine.engine, engine.engine)
    return f"model {engine.model} runs on {name}, which has no {feature} yet: load it with vLLM"
