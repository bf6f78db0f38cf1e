"""Wire requests to engine requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.convert.features import Features
from app.schemas.chat import ChatCompletionRequest, Message
from app.schemas.common import MAX_CHOICES, SamplingFields
from app.schemas.completions import CompletionRequest
from balancer.call import ResumePoint
from engines.base import Engine, GenerationRequest, Prompt, Sampling
from engines.errors import RequestError

# What calls sent back have on top of what they are.
_OF_CLIENTS: Any = {"index": True, "function": {"parsed_arguments"}}


def sampling(body: SamplingFields) -> Sampling:
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=max(body.top_k, 0),
        min_p=body.min_p,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        logit_bias=tuple((int(token), bias) for token, bias in (body.logit_bias or {}).items()),
        seed=body.seed,
    )


def messages(body: ChatCompletionRequest) -> list[dict[str, Any]]:
    """Messages as chat templates expect them: a role and one string, and what belongs to calls of tools."""
    return [_message(message, f"messages.{i}") for i, message in enumerate(body.messages)]


def chat_requests(
    body: ChatCompletionRequest,
    prompt: Prompt,
    request_id: str,
    features: Features,
    begun: ResumePoint | None,
) -> list[GenerationRequest]:
    """One request for each of the ``n`` answers; of one that was ``begun`` elsewhere there is only one."""
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return _answers(body, prompt, request_id, features, begun, limit=body.limit, logprobs=logprobs)


def completion_requests(
    body: CompletionRequest,
    prompts: Sequence[Prompt],
    request_id: str,
    features: Features,
    begun: ResumePoint | None,
) -> list[GenerationRequest]:
    """``n`` requests for each prompt, prompt by prompt: the order of the choices' indices."""
    if len(prompts) * body.n > MAX_CHOICES:
        raise RequestError(
            f"{len(prompts)} prompts with {body.n} answers each are more than {MAX_CHOICES} answers",
            param="n",
        )
    return [
        request
        for prompt in prompts
        for request in _answers(
            body, prompt, request_id, features, begun, limit=body.max_tokens, logprobs=body.logprobs
        )
    ]


async def completion_prompts(body: CompletionRequest, engine: Engine) -> list[Prompt]:
    """The prompts of a plain completion, tokenised; token ids are taken as they are."""
    prompts: list[Prompt] = []
    for item in prompt_list(body.prompt):
        if isinstance(item, str):
            prompts.append(Prompt(await engine.tokenize(item), item))
        else:
            text = await engine.detokenize(item) if body.echo else None
            prompts.append(Prompt(tuple(item), text))
    return prompts


def prompt_list(prompt: str | list[str] | list[int] | list[list[int]]) -> Sequence[str | list[int]]:
    """The prompts of a plain completion, each a text or its tokens."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [prompt]  # one list of token ids
    return prompt


def _message(message: Message, where: str) -> dict[str, Any]:
    # "developer" is OpenAI's newer word for "system"; templates know the older one.
    role = "system" if message.role == "developer" else message.role
    named = {"name": message.name} if message.name is not None else {}
    own = {**_of_assistant(message, where), **_of_tool(message, where)}
    return {"role": role, "content": _content(message, where), **named, **own}


def _content(message: Message, where: str) -> str | None:
    content = message.content
    if content is None:
        if message.role != "assistant":
            raise RequestError(f"a message of role {message.role} needs content", param=f"{where}.content")
        # Templates tell an answer that only calls tools by its null.
        return message.refusal or (None if message.tool_calls else "")
    if isinstance(content, str):
        return content
    return "".join(_part_text(part.type, part.text, part.refusal, where) for part in content)


def _of_assistant(message: Message, where: str) -> dict[str, Any]:
    for name in ("tool_calls", "reasoning_content"):
        if getattr(message, name) and message.role != "assistant":
            raise RequestError(f"only an assistant's message has {name}", param=f"{where}.{name}")
    own: dict[str, Any] = {}
    if message.tool_calls:
        own["tool_calls"] = [call.model_dump(exclude=_OF_CLIENTS) for call in message.tool_calls]
    if message.reasoning_content:
        # Templates read it under either name.
        own["reasoning_content"] = own["reasoning"] = message.reasoning_content
    return own


def _of_tool(message: Message, where: str) -> dict[str, Any]:
    if message.role == "tool" and message.tool_call_id is None:
        raise RequestError("a tool's message says which call it answers", param=f"{where}.tool_call_id")
    return {"tool_call_id": message.tool_call_id} if message.role == "tool" else {}


def _part_text(kind: str, text: str | None, refusal: str | None, where: str) -> str:
    found = text if kind == "text" else refusal
    if found is None:
        raise RequestError(f"a content part of type {kind} needs `{kind}`", param=f"{where}.content")
    return found


def _min_tokens(body: SamplingFields, limit: int | None) -> int:
    if limit is not None and body.min_tokens > limit:
        raise RequestError("min_tokens must not exceed max_tokens", param="min_tokens")
    return body.min_tokens


def _answers(
    body: SamplingFields,
    prompt: Prompt,
    request_id: str,
    features: Features,
    begun: ResumePoint | None,
    *,
    limit: int | None,
    logprobs: int | None,
) -> list[GenerationRequest]:
    """``n`` requests for ``prompt``; with a seed each gets its own, or they would all be the same."""
    request = GenerationRequest(
        request_id=request_id,
        prompt=prompt,
        sampling=sampling(body),
        max_tokens=limit,
        min_tokens=_min_tokens(body, limit),
        stop=body.stops,
        ignore_eos=body.ignore_eos,
        logprobs=logprobs,
        structure=features.structure,
        adapter=features.adapter,
        generated=begun.token_ids if begun is not None else (),
    )
    seed = request.sampling.seed
    if body.n == 1 or seed is None:
        return [request] * body.n
    return [replace(request, sampling=replace(request.sampling, seed=seed + i)) for i in range(body.n)]
