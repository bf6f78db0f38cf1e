"""Fixtures over the stand-ins of `support.balancing`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from support.balancing import Clock, Setup, World


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make_world() -> AsyncIterator[Callable[..., World]]:
    """Makes worlds that are stopped, and checked for leftovers, after the test."""
    worlds: list[World] = []

    def make(**setup: Any) -> World:
        worlds.append(World(Setup(**setup)))
        return worlds[-1]

    yield make
    for world in worlds:
        async with asyncio.timeout(5):
            await world.stop()
