"""Capabilities: what a task needs that not every engine has, and whether an engine has it."""

from __future__ import annotations

from collections.abc import Mapping

from engines.base import EngineInfo
from engines.errors import UnsupportedFeature

_FEATURES = {"tools": "tool calling", "structured": "structured output", "adapters": "LoRA adapters"}
_ENGINES = {"llama_cpp": "llama.cpp", "mlx": "MLX", "vllm": "vLLM", "fake": "the fake engine"}
# vLLM can do it, but has not been told how for this model.
_VLLM_HELP = {
    "tools": "vLLM knows no parser for its calls of tools: name one in models/models.yaml, such as "
    "`options: {tool_call_parser: hermes}`",
    "adapters": "it was loaded without adapters: load it again with those of models/models.yaml",
}


def check(needs: Mapping[str, str], engine: EngineInfo) -> None:
    """Raise `UnsupportedFeature` for what ``engine`` cannot do: it is never ignored.

    ``needs`` pairs a capability with the field of the request that asks for it.
    """
    for capability, param in needs.items():
        if capability not in engine.capabilities:
            raise UnsupportedFeature(_refusal(capability, engine), param=param)


def _refusal(capability: str, engine: EngineInfo) -> str:
    feature = _FEATURES[capability]
    if engine.engine == "vllm":
        return f"model {engine.model} has no {feature}: {_VLLM_HELP.get(capability, 'vLLM lacks it here')}"
    name = _ENGINES.get(engine.engine, engine.engine)
    return f"model {engine.model} runs on {name}, which has no {feature} yet: load it with vLLM"
