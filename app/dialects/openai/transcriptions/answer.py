"""Answers of transcriptions: what a chat completion becomes."""

from __future__ import annotations

import json

from balancer.errors import BadAnswer
from balancer.proxy.headers import Header, value_of

_MOST_BYTES = 16 * 2**20
# They are about the bytes that were translated.
_OF_BODY = frozenset({b"content-type", b"content-length"})


class TranscriptionAnswer:
    """The way of one answer back (`Translation`). An upstream's own error is passed on as it is."""

    def __init__(self, *, as_text: bool) -> None:
        self._as_text = as_text
        self._failed = False
        self._data = bytearray()

    def begin(self, status: int, headers: list[Header]) -> list[Header]:
        if value_of(headers, b"content-encoding") not in (None, b"identity"):
            raise BadAnswer("the upstream compressed its answer, though it was asked not to")
        self._failed = status >= 400
        if self._failed:
            return headers
        kind = b"text/plain; charset=utf-8" if self._as_text else b"application/json"
        return [*(each for each in headers if each[0] not in _OF_BODY), (b"content-type", kind)]

    def feed(self, data: bytes) -> bytes:
        if self._failed:
            return data
        self._data += data
        if len(self._data) > _MOST_BYTES:
            raise BadAnswer(f"a transcription has more than {_MOST_BYTES:,} bytes")
        return b""

    def end(self) -> bytes:
        if self._failed:
            return b""
        try:
            answer = json.loads(self._data)
            text = str(answer["choices"][0]["message"]["content"] or "").strip()
            usage = answer["usage"]
            told = {
                "type": "tokens",
                "input_tokens": usage["prompt_tokens"],
                "output_tokens": usage["completion_tokens"],
                "total_tokens": usage["total_tokens"],
            }
        except (ValueError, KeyError, IndexError, TypeError):
            raise BadAnswer("the backend's answer is no chat completion") from None
        if self._as_text:
            return f"{text}\n".encode()
        return json.dumps({"text": text, "usage": told}, ensure_ascii=False).encode()

    def error(self, error: Exception) -> bytes:
        return b""
