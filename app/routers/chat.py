"""POST /v1/chat/completions."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.convert import features, requests
from app.convert.chat_answers import ChatFormat
from app.convert.continuation import begun_elsewhere, refuse_readers, resumable, wants_tokens
from app.convert.parsed_answers import answer_readers
from app.convert.unsupported import refuse_in_chat
from app.inference import merge as generation
from app.inference import reply as replies
from app.routers.inference import STREAM_EXAMPLE, RelayRoute, exchange, find_model
from app.schemas.chat import ChatCompletion, ChatCompletionRequest
from app.schemas.common import ERROR_RESPONSES
from app.telemetry.inference import InferenceRecord
from balancer.call import Reply, ResumePoint
from engines.base import Engine

router = APIRouter(tags=["Inference"], route_class=RelayRoute)


@router.post(
    "/v1/chat/completions",
    summary="Answer a conversation",
    response_model=ChatCompletion,
    responses={**ERROR_RESPONSES, **STREAM_EXAMPLE},
)
async def create_chat_completion(body: ChatCompletionRequest, request: Request) -> Response:
    """Tools, reasoning, `response_format` and adapters need an engine that has them, else the answer is a
    400 that says which has. Calls of tools come in `tool_calls`, reasoning in `reasoning_content`."""
    refuse_in_chat(body)
    model, body, adapter = find_model(request, body)
    messages = requests.messages(body)
    wanted = features.chat_features(body, adapter)
    asked = begun_elsewhere(body, wanted)
    can_resume = resumable(body, wanted)
    announced = wants_tokens(request)

    async def run(
        engine: Engine, record: InferenceRecord, request_id: str, continuation: ResumePoint | None
    ) -> Reply:
        begun = continuation or asked
        features.check(wanted, engine.info)
        tools = wanted.tools.definitions() if wanted.tools is not None else None
        prompt = await engine.render_chat(messages, tools=tools)
        readers = answer_readers(engine, wanted.tools, prompt, body.n)
        refuse_readers(begun, readers)
        sequences = generation.start(
            engine, requests.chat_requests(body, prompt, request_id, wanted, begun), record, answers=body.n
        )
        format = ChatFormat(
            request_id=request_id,
            model=adapter or engine.info.model,
            choices=body.n,
            include_usage=body.include_usage,
            readers=readers,
            begun=begun,
        )
        if body.stream:
            form = replies.StreamForm(body.include_usage, can_resume and not readers, begun, announced)
            return await replies.streamed(sequences, format, form)
        return await replies.whole(sequences, format)

    return await exchange(request, model.name, body, run, resumable=can_resume)
