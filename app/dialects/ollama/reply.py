"""What the translations of all of Ollama's answers have in common: heads and errors."""

from __future__ import annotations

from app.answer_bytes import error_message
from app.dialects.ollama.envelope import sentence
from app.errors import to_api_error
from app.sse import to_json
from balancer.errors import BadAnswer
from balancer.proxy.headers import Header, value_of

JSON = b"application/json"
NDJSON = b"application/x-ndjson"

# Bytes of an upstream's error that are read.
_MOST_ERROR = 64 * 2**10
# They are about the bytes that were translated.
_OF_BODY = frozenset({b"content-type", b"content-length"})


class OllamaTranslation:
    """Base of translations. ``content_type`` is that of the answer; an upstream's error becomes Ollama's."""

    def __init__(self, content_type: bytes) -> None:
        self._content_type = content_type
        self._failed: bytearray | None = None

    def begin(self, status: int, headers: list[Header]) -> list[Header]:
        if value_of(headers, b"content-encoding") not in (None, b"identity"):
            raise BadAnswer("the upstream compressed its answer, though it was asked not to")
        if status >= 400:
            self._failed = bytearray()
        kept = [header for header in headers if header[0] not in _OF_BODY]
        return [*kept, (b"content-type", self._content_type if self._failed is None else JSON)]

    def feed(self, data: bytes) -> bytes:
        if self._failed is None:
            return self._read(data)
        if len(self._failed) < _MOST_ERROR:
            self._failed += data
        return b""

    def end(self) -> bytes:
        if self._failed is None:
            return self._finish()
        return to_json({"error": error_message(bytes(self._failed))})

    def error(self, error: Exception) -> bytes:
        if self._content_type != NDJSON:
            return b""
        return to_json({"error": sentence(to_api_error(error))}) + b"\n"

    def _read(self, data: bytes) -> bytes:
        raise NotImplementedError

    def _finish(self) -> bytes:
        raise NotImplementedError
