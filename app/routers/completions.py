"""POST /v1/completions."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from app import generation, replies
from app.convert import features, requests
from app.convert.completion_answers import CompletionFormat
from app.convert.unsupported import refuse_in_completion
from app.routers.inference import STREAM_EXAMPLE, exchange, find_model
from app.schemas.common import ERROR_RESPONSES
from app.schemas.completions import Completion, CompletionRequest
from app.telemetry.inference import InferenceRecord
from balancer.backend import Reply
from engines.base import Engine

router = APIRouter(tags=["Inference"])


@router.post(
    "/v1/completions",
    summary="Continue a text",
    response_model=Completion,
    responses={**ERROR_RESPONSES, **STREAM_EXAMPLE},
)
async def create_completion(body: CompletionRequest, request: Request) -> Response:
    refuse_in_completion(body)
    model, body, adapter = find_model(request, body)
    wanted = features.completion_features(body, adapter)

    async def run(engine: Engine, record: InferenceRecord, request_id: str) -> Reply:
        features.check(wanted, engine.info)
        prompts = await requests.completion_prompts(body, engine)
        sequences = generation.start(
            engine, requests.completion_requests(body, prompts, request_id, wanted), record, answers=body.n
        )
        format = CompletionFormat(
            request_id=request_id,
            model=adapter or engine.info.model,
            choices=len(prompts) * body.n,
            include_usage=body.include_usage,
            echoes=[prompt.text or "" for prompt in prompts for _ in range(body.n)] if body.echo else None,
        )
        if body.stream:
            return await replies.streamed(sequences, format, include_usage=body.include_usage)
        return await replies.whole(sequences, format)

    return await exchange(request, model.name, body, run)
