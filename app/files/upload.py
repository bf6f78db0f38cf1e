"""Uploads: multipart bodies, whose file goes to the disk as it comes."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import ApiError

# Written at once.
STEP = 256 * 2**10
# Of fields beside the file: no client needs as much.
MAX_PARTS = 64
MAX_FIELD_BYTES = 4096
_MAX_NAME = 255
_FILE = "file"


@dataclass(slots=True)
class Upload:
    """What came: the fields by name, and the file, of ``size`` bytes, which is at ``part``."""

    part: Path
    size: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None

    def discard(self) -> None:
        """Remove the part, unless it was kept."""
        self.part.unlink(missing_ok=True)


async def receive_upload(body: AsyncIterator[bytes], content_type: str, part: Path) -> Upload:
    """Write the file of a multipart ``body`` to ``part``. Raises `ApiError`; the part is removed then."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise _bad("Send the file as multipart/form-data, with the fields `file` and `purpose`.")
    upload = Upload(part)
    try:
        with part.open("xb") as file:
            parser = _Parser(boundary, upload, file)
            await _feed(body, parser)
    except BaseException as error:
        upload.discard()
        if isinstance(error, FormParserError):
            raise _bad(f"The body is no valid multipart/form-data: {error}.") from None
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = "The server's disk has no room for this file: try again once there is."
            raise ApiError(503, "storage_unavailable", message, retry_after=60) from error
        raise
    if upload.filename is None:
        upload.discard()
        raise ApiError(400, "invalid_request_error", "`file` is missing: the file to be uploaded.", _FILE)
    return upload


async def _feed(body: AsyncIterator[bytes], parser: _Parser) -> None:
    pending = bytearray()
    async for data in body:
        pending += data
        if len(pending) >= STEP:
            piece, pending = bytes(pending), bytearray()
            await asyncio.to_thread(parser.write, piece)
    await asyncio.to_thread(parser.finish, bytes(pending))


class _Parser:
    """Sorts the parts of a body: into the file, and into fields that are small."""

    def __init__(self, boundary: bytes, upload: Upload, file: BinaryIO) -> None:
        self._upload = upload
        self._file = file
        self._header = self._value = b""
        self._disposition = b""
        self._name: str | None = None
        self._is_file = False
        self._field = b""
        self._parts = 0
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_end": self._on_end,
            },
        )

    def write(self, data: bytes) -> None:
        self._parser.write(data)

    def finish(self, data: bytes) -> None:
        self._parser.write(data)
        if not self._ended:
            raise _bad("The body ends before its last part does.")

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _bad(f"The body has more than {MAX_PARTS} parts.")
        self._header = self._value = self._disposition = self._field = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == _FILE
        if self._is_file:
            if self._upload.filename is not None:
                raise _bad("There is more than one `file`: upload one after the other.")
            self._upload.filename = _name(options.get(b"filename", b""))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._file.write(data[start:end])
            self._upload.size += end - start
            return
        self._field += data[start:end]
        if len(self._field) > MAX_FIELD_BYTES:
            raise _bad(f"The field {self._name!r} is longer than {MAX_FIELD_BYTES} bytes.")

    def _on_part_end(self) -> None:
        if not self._is_file and self._name:
            self._upload.fields[self._name] = self._field.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self._ended = True


def _name(given: bytes) -> str:
    """The last part of the client's path, without what would upset a terminal or a header."""
    text = given.decode("utf-8", "replace").replace("\\", "/")
    name = "".join(each for each in PurePosixPath(text).name if each.isprintable())
    return name[:_MAX_NAME] or _FILE


def _bad(message: str) -> ApiError:
    return ApiError(400, "invalid_request_error", message)
