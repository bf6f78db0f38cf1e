"""Capabilities: what a task needs that not every engine has, and whether an engine has it."""

from __future__ import annotations

from collections.abc import Mapping

from engines.base import EngineInfo
from engines.errors import UnsupportedFeature
from engines.registry import ENGINES

_FEATURES = {"tools": "tool calling", "structured": "structured output", "adapters": "LoRA adapters"}


def check(needs: Mapping[str, str], engine: EngineInfo) -> None:
    """Raise `UnsupportedFeature` for what ``engine`` cannot do: it is never ignored.

    ``needs`` pairs a capability with the field of the request that asks for it.
    """
    for capability, param in needs.items():
        if capability not in engine.capabilities:
            raise UnsupportedFeature(_refusal(capability, engine), param=param)


def _refusal(capability: str, engine: EngineInfo) -> str:
    feature, descriptor = _FEATURES[capability], ENGINES.get(engine.engine)
    label = engine.engine if descriptor is None else descriptor.label
    if descriptor is not None and capability in descriptor.capabilities:
        help = descriptor.help.get(capability, f"{label} lacks it here")
        return f"model {engine.model} has no {feature}: {help}"
    able = [each.label for each in ENGINES.values() if capability in each.capabilities]
    return (
        f"model {engine.model} runs on {label}, which has no {feature} yet: load it with {' or '.join(able)}"
    )
