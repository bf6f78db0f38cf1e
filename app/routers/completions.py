"""POST /v1/completions."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.convert import features, requests
from app.convert.completion_answers import CompletionFormat
from app.convert.continuation import begun_elsewhere, resumable, wants_tokens
from app.convert.unsupported import refuse_in_completion
from app.inference import merge as generation
from app.inference import reply as replies
from app.routers.inference import STREAM_EXAMPLE, RelayRoute, exchange, find_model
from app.schemas.common import ERROR_RESPONSES
from app.schemas.completions import Completion, CompletionRequest
from app.telemetry.inference import InferenceRecord
from balancer.call import Reply, ResumePoint
from engines.base import Engine

router = APIRouter(tags=["Inference"], route_class=RelayRoute)


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
    asked = begun_elsewhere(body, wanted)
    can_resume = resumable(body, wanted)
    announced = wants_tokens(request)

    async def run(
        engine: Engine, record: InferenceRecord, request_id: str, continuation: ResumePoint | None
    ) -> Reply:
        begun = continuation or asked
        features.check(wanted, engine.info)
        prompts = await requests.completion_prompts(body, engine)
        sequences = generation.start(
            engine,
            requests.completion_requests(body, prompts, request_id, wanted, begun),
            record,
            answers=body.n,
        )
        format = CompletionFormat(
            request_id=request_id,
            model=adapter or engine.info.model,
            choices=len(prompts) * body.n,
            include_usage=body.include_usage,
            echoes=[prompt.text or "" for prompt in prompts for _ in range(body.n)] if body.echo else None,
            begun=begun,
        )
        if body.stream:
            form = replies.StreamForm(body.include_usage, can_resume, begun, announced)
            return await replies.streamed(sequences, format, form)
        return await replies.whole(sequences, format)

    return await exchange(request, model.name, body, run, resumable=can_resume)
