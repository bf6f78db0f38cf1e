"""Results of a batch: two files that grow line by line, and tell after a crash which requests are done."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from uuid import uuid4

OUTPUT, ERRORS = "output.jsonl", "errors.jsonl"


class BatchResults:
    """The results of one batch in ``folder``, each by its request's ``custom_id``.

    A line is written at once, and with its end: what a crash left half-written is cut off, and its request
    counts as not done.
    """

    def __init__(self, folder: Path) -> None:
        self.output, self.errors = folder / OUTPUT, folder / ERRORS
        self.done: set[str] = set()
        self.completed = self.failed = 0
        self.usage = TokenUsage()
        self._files: dict[Path, BinaryIO] = {}
        self._writing = asyncio.Lock()

    async def open(self) -> None:
        """Read what is done, and be ready for more."""
        await asyncio.to_thread(self._open)

    async def __aenter__(self) -> BatchResults:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    async def add(
        self, custom_id: str, response: Mapping[str, Any] | None, error: Mapping[str, Any] | None = None
    ) -> None:
        """Keep the result of a request: what was answered, or why nothing was. Raises `OSError`."""
        is_good = error is None and response is not None and response["status_code"] < 400
        line = {
            "id": f"batch_req_{uuid4().hex}",
            "custom_id": custom_id,
            "response": response,
            "error": error,
        }
        data = json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        async with self._writing:
            file = self._files[self.output if is_good else self.errors]
            writing = asyncio.ensure_future(asyncio.to_thread(_append, file, data))
            try:
                await asyncio.shield(writing)
            finally:
                # Also when this is cancelled: the line is there, or it is not.
                await asyncio.wait((writing,))
                if writing.exception() is None:
                    self._count(line, is_good)

    def _count(self, line: Mapping[str, Any], is_good: bool) -> None:
        self.done.add(line["custom_id"])
        if not is_good:
            self.failed += 1
            return
        self.completed += 1
        body = line["response"]["body"]
        self.usage.add(body.get("usage") if isinstance(body, dict) else None)

    def _open(self) -> None:
        for path in (self.output, self.errors):
            file = self._files[path] = path.open("a+b")
            file.seek(0)
            whole = 0
            for data in iter(file.readline, b""):
                line = _read(data)
                if line is None:
                    break
                whole += len(data)
                self._count(line, path == self.output)
            os.truncate(file.fileno(), whole)


class TokenUsage:
    """The tokens of a batch's answers, whichever API they are of."""

    def __init__(self) -> None:
        self.input = self.cached = self.output = self.reasoning = 0

    def add(self, usage: object) -> None:
        if not isinstance(usage, dict):
            return
        self.input += _number(usage, "input_tokens", "prompt_tokens")
        self.output += _number(usage, "output_tokens", "completion_tokens")
        for name in ("input_tokens_details", "prompt_tokens_details"):
            self.cached += _number(usage.get(name), "cached_tokens")
        for name in ("output_tokens_details", "completion_tokens_details"):
            self.reasoning += _number(usage.get(name), "reasoning_tokens")

    def document(self) -> dict[str, Any]:
        return {
            "input_tokens": self.input,
            "input_tokens_details": {"cached_tokens": self.cached},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.input + self.output,
        }


def _append(file: BinaryIO, data: bytes) -> None:
    """Write all of ``data``, or nothing."""
    end = file.seek(0, os.SEEK_END)
    try:
        file.write(data)
        file.flush()
    except OSError:
        os.truncate(file.fileno(), end)
        raise


def _read(data: bytes) -> dict[str, Any] | None:
    """A line that was written whole; else None."""
    if not data.endswith(b"\n"):
        return None
    try:
        line = json.loads(data)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("custom_id"), str) else None


def _number(usage: object, *names: str) -> int:
    for name in names:
        if isinstance(usage, dict) and isinstance(usage.get(name), int):
            found: int = usage[name]
            return found
    return 0
