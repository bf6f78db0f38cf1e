"""What a batching engine does off its thread, while it is being closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest

from engines.base import EngineInfo, EngineStats
from engines.batching.engine import BatchingEngine
from engines.errors import EngineError
from engines.text.templates.renderer import TemplateWorker
from engines.text.tokens.special_tokens import SpecialTokens

LONG = "a word " * 9999


class _Thread:
    """An engine thread that ends when it is told to."""

    stats = EngineStats()

    def stop(self, reason: EngineError) -> None:
        pass

    def join(self, timeout: float) -> bool:
        return True


class _Native:
    """A vocabulary in memory that must not be touched once it is free; tokenising blocks until told."""

    n_vocab = 9
    bos_text = eos_text = ""
    chat_template = rerank_template = None
    special_tokens = SpecialTokens(longest=9)
    splits_runs = False
    fim = None

    def __init__(self) -> None:
        self.entered, self.go, self.freed = (threading.Event() for _ in range(3))
        self.crashed = False

    def is_end(self, token: int) -> bool:
        return False

    def piece(self, token: int) -> bytes:
        self._touch()
        return b""

    def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        self.entered.set()
        assert self.go.wait(5)
        self._touch()
        return (1,)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        self._touch()
        return ""

    def _touch(self) -> None:
        self.crashed |= self.freed.is_set()


class _Engine(BatchingEngine[Any]):
    def __init__(self, native: _Native) -> None:
        info = EngineInfo("x", "x", context_length=2**20, max_sequences=1, devices=("cpu",))
        super().__init__(cast(Any, _Thread()), info, native, TemplateWorker(), stall_timeout=1.0)
        self._native = native

    def _new_sequence(self, *args: Any) -> Any:
        raise NotImplementedError

    def _lacks_special(self, text: str) -> bool:
        return True

    async def _release_templates(self) -> None:
        await self._templates.close()

    def _release_model(self) -> None:
        self._native.freed.set()

    async def sleep(self) -> None:
        raise NotImplementedError

    async def wake(self) -> None:
        raise NotImplementedError


async def entered(native: _Native) -> None:
    async with asyncio.timeout(5):
        while not native.entered.is_set():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_model_is_not_freed_under_a_text_that_is_read(leaves: bool) -> None:
    """The client may be there still, or have gone: native code goes on either way."""
    native = _Native()
    engine = _Engine(native)
    reading = asyncio.create_task(engine.tokenize(LONG))
    await entered(native)
    if leaves:
        reading.cancel()
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0.02)
    assert not native.freed.is_set()
    native.go.set()
    await closing
    assert native.freed.is_set()
    assert not native.crashed
    (outcome,) = await asyncio.gather(reading, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError if leaves else EngineError | tuple)


async def test_a_closed_engine_touches_nothing() -> None:
    native = _Native()
    native.go.set()
    engine = _Engine(native)
    await engine.close()
    for call in (engine.tokenize("a"), engine.tokenize(LONG), engine.detokenize([1])):
        with pytest.raises(EngineError, match="closed"):
            await call
    assert not native.crashed
