"""The route for transcriptions: a form, unlike those of all other inferences."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.dialects.openai.transcriptions.parse import translate
from app.dialects.openai.transcriptions.schema import Transcription, TranscriptionForm
from app.errors import invalid_value
from app.inference.translation import Translated
from app.routers.serving import BareRoute, serve_form
from app.schemas.common import ERROR_RESPONSES
from engines.errors import RequestError

router = APIRouter(tags=["Inference"], route_class=BareRoute)

MOST_FIELDS = 32
_FILE = "file"
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [_FILE, "model"],
                    "properties": {
                        _FILE: {"type": "string", "format": "binary", "description": "WAV, MP3 or FLAC."},
                        **TranscriptionForm.model_json_schema()["properties"],
                    },
                }
            }
        },
    }
}


@router.post(
    "/v1/audio/transcriptions",
    summary="Write down what is said in a sound",
    response_model=Transcription,
    responses=ERROR_RESPONSES,
    openapi_extra=_FORM,
)
async def create_transcription(request: Request) -> Response:
    """Needs a model that hears (`audio` among its capabilities), which is asked in a chat. `response_format`
    is `json` or `text`."""
    return _AboutFile(request)


class _AboutFile(Response):
    """The response to a form; what is wrong with the sound is told of the field that it came in."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await serve_form(self._request, _translate)
            await response(scope, receive, send)
        except RequestError as error:
            if error.param is not None and error.param.startswith("messages."):
                error.param = _FILE
            raise


async def _translate(request: Request) -> Translated:
    async with request.form(max_files=1, max_fields=MOST_FIELDS) as form:
        file = form.get(_FILE)
        sound = await file.read() if isinstance(file, UploadFile) else None
        filename = (file.filename or "") if isinstance(file, UploadFile) else ""
        fields = {name: value for name, value in form.items() if isinstance(value, str) and name != _FILE}
    try:
        return translate(fields, sound, filename)
    except ValidationError as error:
        raise invalid_value(error, fields) from None
