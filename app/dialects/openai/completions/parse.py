"""Parser of text completions: a request's JSON to a task."""

from __future__ import annotations

from typing import Any

from app.dialects.openai.completions.schema import CompletionRequest
from app.dialects.openai.prompts import text_or_token_ids
from app.dialects.openai.sampling import MAX_CHOICES, check_min_tokens, with_defaults
from app.dialects.openai.structure import of_structured_outputs, only_one
from app.inference.dialect import Resolve
from app.inference.task import Task
from app.schemas.unknown_fields import read_body
from engines.errors import RequestError


def parse(document: Any, resolve: Resolve) -> Task:
    """Raises pydantic's `ValidationError`, or `EngineError` for what cannot be met."""
    body, unknown = read_body(CompletionRequest, document)
    resolved = resolve(body.model)
    resolved.check_purpose("text")
    body, defaults = with_defaults(body, resolved.sampling)
    check_min_tokens(body, body.max_tokens)
    prompts = text_or_token_ids(body.prompt)
    best_of = _best_of(body)
    each = best_of or body.n
    if len(prompts) * each > MAX_CHOICES:
        raise RequestError(
            f"{len(prompts)} prompts with {each} answers each are more than {MAX_CHOICES} answers",
            param="best_of" if best_of else "n",
        )
    body.check_lists(len(prompts) * each)
    found = only_one(
        {"structured_outputs": of_structured_outputs(body.structured_outputs), **body.structures()}
    )
    structure, asked_in = found or (None, "")
    needs = body.needs()
    if structure is not None:
        needs["structured"] = asked_in
    if resolved.target.adapter is not None:
        needs["adapters"] = "model"
    if body.suffix:
        needs["fim"] = "suffix"
    if body.echo and body.logprobs is not None:
        needs["prompt_logprobs"] = "logprobs"
    return Task(
        target=resolved.target,
        prompts=prompts,
        sampling=body.sampling(),
        n=body.n,
        max_tokens=body.max_tokens,
        min_tokens=body.min_tokens,
        stop=body.stops,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        include_stop=body.include_stop_str_in_output,
        show_special=not body.skip_special_tokens,
        add_special=body.add_special_tokens,
        ignore_eos=body.ignore_eos,
        logprobs=body.logprobs,
        prompt_logprobs=_prompt_logprobs(body),
        best_of=best_of,
        structure=structure,
        needs=needs,
        stream=body.stream,
        include_usage=body.include_usage,
        continuous_usage=body.continuous_usage,
        tell_token_ids=body.return_token_ids,
        tell_prompt_logprobs=body.prompt_logprobs is not None,
        echo=body.echo,
        suffix=body.suffix or None,
        priority=body.priority,
        keep_alive=body.keep_alive,
        defaults=defaults,
        unknown=unknown,
    )


def _best_of(body: CompletionRequest) -> int:
    """How many answers are generated to choose from; 0: as many as are told."""
    if body.best_of is None or body.best_of == body.n:
        return 0
    if body.best_of < body.n:
        raise RequestError(f"best_of must not be less than n, which is {body.n}", param="best_of")
    if body.stream:
        raise RequestError("with best_of beyond n there is nothing to stream: leave one out", param="best_of")
    return body.best_of


def _prompt_logprobs(body: CompletionRequest) -> int | None:
    echoed = body.logprobs if body.echo else None
    wanted = [number for number in (echoed, body.prompt_logprobs) if number is not None]
    return max(wanted, default=None)
