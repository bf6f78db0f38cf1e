"""Schema of transcriptions: the fields of the form beside its file, and the answer."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import WireModel


class TranscriptionForm(WireModel):
    """The fields, all of them text on the wire."""

    model_config = ConfigDict(strict=False)

    model: str = Field(description="A model that hears: `audio` among its capabilities.")
    language: str | None = Field(
        None, max_length=64, description="Of the sound, such as `en`: the model is told."
    )
    prompt: str | None = Field(None, max_length=4096, description="Names and words that are in the sound.")
    response_format: Literal["json", "text", "verbose_json", "srt", "vtt", "diarized_json"] = "json"
    temperature: float = Field(0.0, ge=0, le=2)
    stream: bool = False


class TokensTaken(BaseModel):
    type: Literal["tokens"]
    input_tokens: int
    output_tokens: int
    total_tokens: int


class Transcription(BaseModel):
    text: str
    usage: TokensTaken
