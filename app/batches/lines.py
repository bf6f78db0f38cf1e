"""Lines of a batch's input: read a few at a time, so that neither the memory nor the event loop has to hold
them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from app import json_body
from app.errors import ApiError

# Read at once.
_LINES, _BYTES = 64, 64 * 2**10
_MARK = b"\xef\xbb\xbf"  # with which some editors begin a file


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line as it stands in the file, the first is number 1; None: it is too long to be looked at."""

    number: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class BatchLine:
    """A request of a batch."""

    number: int
    custom_id: str
    body: dict[str, Any]


class LineProblem(Exception):
    """A line that is no request of a batch. ``code`` as OpenAI's errors have it."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


async def read_lines(path: Path, most_bytes: int) -> AsyncGenerator[RawLine]:
    """The lines of a file that are not blank; of one that is longer than ``most_bytes``, the number only."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        number = 0
        while some := await asyncio.to_thread(_read_some, file, most_bytes):
            for data in some:
                number += 1
                if number == 1 and data is not None:
                    data = data.removeprefix(_MARK)
                if data is None or data.strip():
                    yield RawLine(number, data)
            await asyncio.sleep(0)
    finally:
        file.close()


def _read_some(file: BinaryIO, most_bytes: int) -> list[bytes | None]:
    some: list[bytes | None] = []
    size = 0
    while len(some) < _LINES and size < _BYTES and (data := file.readline(most_bytes + 1)):
        size += len(data)
        if len(data) > most_bytes and not data.endswith(b"\n"):
            some.append(None)
            while (rest := file.readline(_BYTES)) and not rest.endswith(b"\n"):
                pass
        else:
            some.append(data)
    return some


async def parse_line(raw: RawLine, endpoint: str, large: asyncio.Lock, most_bytes: int) -> BatchLine:
    """The request that a line is. Raises `LineProblem`."""
    if raw.data is None:
        raise LineProblem("request_too_large", f"This line is longer than {most_bytes} bytes.")
    try:
        if json_body.is_small(raw.data):
            document = json_body.parse(raw.data)
        else:
            async with large:
                document = await json_body.parse_large(raw.data)
    except ApiError as error:
        reason = error.message.removeprefix("The body is not valid JSON: ")
        raise LineProblem("invalid_json_line", f"This line is not valid JSON: {reason}") from None
    return _checked(raw.number, document, endpoint)


def _checked(number: int, document: Any, endpoint: str) -> BatchLine:
    if not isinstance(document, dict):
        raise LineProblem("invalid_json_line", "Each line must be a JSON object.")
    custom_id, body = document.get("custom_id"), document.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= 512:
        raise LineProblem(
            "missing_required_parameter", "`custom_id` must be a text of 1 to 512 characters.", "custom_id"
        )
    if document.get("method") != "POST":
        raise LineProblem("invalid_method", "`method` must be POST.", "method")
    if document.get("url") != endpoint:
        raise LineProblem("mismatched_url", f"`url` must be the batch's endpoint, {endpoint}.", "url")
    if not isinstance(body, dict):
        raise LineProblem("missing_required_parameter", "`body` must be a JSON object.", "body")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise LineProblem("missing_required_parameter", "`body.model` is missing.", "body.model")
    if body.get("stream"):
        message = "`body.stream` must be left out: the answers of a batch come whole."
        raise LineProblem("unsupported_parameter", message, "body.stream")
    return BatchLine(number, custom_id, body)
