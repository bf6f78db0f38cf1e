"""Loads that must not run side by side."""

from __future__ import annotations

import asyncio

import pytest

from engines.fake import FakeEngine
from engines.load_spec import LoadSpec
from engines.registry import EngineRegistry
from engines.vllm import loading
from engines.vllm.engine import VllmEngine


async def test_vllm_loads_one_model_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes its settings from the environment, which belongs to the whole process."""
    running: list[str] = []
    most = 0

    async def load(spec: LoadSpec, progress: object) -> FakeEngine:
        nonlocal most
        running.append(spec.name)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.remove(spec.name)
        return FakeEngine(spec.name)

    monkeypatch.setattr(VllmEngine, "load", load)
    monkeypatch.setattr(loading, "_pools", lambda spec: False)
    registry = EngineRegistry()
    engines = await asyncio.gather(*(registry.load(LoadSpec("vllm", name)) for name in "abc"))
    assert [engine.info.model for engine in engines] == ["a", "b", "c"]
    assert most == 1
