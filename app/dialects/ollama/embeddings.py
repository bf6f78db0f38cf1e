"""Answers of embeddings, translated: vectors are cut out of OpenAI's document as they pass.

Their numbers may be millions, so they are not parsed.
"""

from __future__ import annotations

import re

from app.dialects.ollama.reply import JSON, OllamaTranslation
from app.dialects.ollama.timing import Timing
from app.dialects.openai.wire import WIRE
from app.sse import to_json
from balancer.errors import BadAnswer

_VECTOR = re.compile(rb'"embedding"\s*:\s*(\[[-+0-9.eE,\s]+\])')
# An unfinished vector that has more bytes is none.
_MOST_BYTES = 16 * 2**20


class EmbeddingsTranslation(OllamaTranslation):
    """The way back of ``count`` vectors; with none the request was there to load the model. ``is_older``: in
    the form of one vector, without more."""

    def __init__(self, model: str, timing: Timing, count: int, *, is_older: bool) -> None:
        super().__init__(JSON)
        self._model = model
        self._timing = timing
        self._is_older = is_older
        self._count = count
        self._found = 0
        self._rest = b""
        self._others = bytearray()  # what is no vector

    def _read(self, data: bytes) -> bytes:
        text, place = self._rest + data, 0
        told = b""
        for match in _VECTOR.finditer(text):
            told += self._vector(match[1])
            self._others += text[place : match.start()]
            place = match.end()
        self._rest = text[place:]
        if len(self._rest) > _MOST_BYTES:
            raise BadAnswer("the answer has something else than vectors in it")
        return told

    def _vector(self, numbers: bytes) -> bytes:
        self._found += 1
        if self._found > self._count:
            return b""
        before = b"," if self._found > 1 else self._opening()
        return before + numbers

    def _opening(self) -> bytes:
        if self._is_older:
            return b'{"embedding":'
        return b'{"model":%b,"embeddings":[' % to_json(self._model)

    def _finish(self) -> bytes:
        if self._found != max(self._count, 1):
            raise BadAnswer(f"{self._count} vectors were asked for, and {self._found} came")
        opening = b"" if self._count else self._opening()
        if self._is_older:
            return opening + (b"}" if self._count else b"[]}")
        usage = WIRE.find_usage(bytes(self._others + self._rest))
        took = {
            **self._timing.total_and_load(),
            "prompt_eval_count": usage.prompt_tokens if usage and self._count else 0,
        }
        return opening + b"]," + to_json(took)[1:]
