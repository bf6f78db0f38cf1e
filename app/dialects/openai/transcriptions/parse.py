"""Parser of transcriptions: a form to the chat that it becomes, which any backend answers."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import PurePath

from app.dialects.openai.dialect import CHAT
from app.dialects.openai.transcriptions.answer import TranscriptionAnswer
from app.dialects.openai.transcriptions.schema import TranscriptionForm
from app.inference.translation import Translated
from app.schemas.unknown_fields import read_body
from engines.errors import RequestError, UnsupportedFeature

CHAT_PATH = "/v1/chat/completions"
# The words that llama-server has for it.
_ASKED = "Transcribe audio to text"


def translate(fields: Mapping[str, str], sound: bytes | None, filename: str) -> Translated:
    """Raises pydantic's `ValidationError`, `RequestError` and `UnsupportedFeature`."""
    form, unknown = read_body(TranscriptionForm, dict(fields))
    if form.response_format not in ("json", "text"):
        raise UnsupportedFeature(
            f"response_format {form.response_format} needs times, which models that chat do not tell: "
            "use json or text",
            param="response_format",
        )
    if form.stream:
        raise UnsupportedFeature("transcriptions are not streamed yet: leave `stream` out", param="stream")
    if not sound:
        raise RequestError("`file` is missing or empty: send the sound (WAV, MP3 or FLAC) in it", "file")
    data = {"data": b64encode(sound).decode(), "format": PurePath(filename).suffix[1:] or "wav"}
    parts = [{"type": "input_audio", "input_audio": data}, {"type": "text", "text": _instruction(form)}]
    document = {
        "model": form.model,
        "messages": [{"role": "user", "content": parts}],
        "temperature": form.temperature,
    }
    answer = TranscriptionAnswer(as_text=form.response_format == "text")
    return Translated(CHAT, CHAT_PATH, document, answer, unknown)


def _instruction(form: TranscriptionForm) -> str:
    language = f" (language: {form.language})" if form.language else ""
    words = f"\nThese words may be in it: {form.prompt}" if form.prompt else ""
    return f"{_ASKED}{language}{words}"
