"""Whether a request fits a model, and how much it may generate: the same answer from every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from engines.base import GenerationRequest
from engines.errors import ContextLengthExceeded, RequestError, UnsupportedFeature


def generation_limit(request: GenerationRequest, *, context_length: int, n_vocab: int) -> int:
    """Most tokens ``request`` may generate, perhaps 0; those that another backend generated count.

    What ``max_tokens`` asks for beyond ``context_length`` is cut, unless it ``must_fit``.

    Raises `RequestError` for a prompt without tokens, for ids outside the vocabulary (also in ``logit_bias``)
    and for an answer that cannot be continued, and `ContextLengthExceeded` for a prompt that leaves no room
    for what is asked for.
    """
    prompt, wanted = request.prompt.token_ids, request.max_tokens
    room = context_length - len(prompt)
    if room < 0 or (room == 0 and wanted != 0):
        raise ContextLengthExceeded(context_length, len(prompt))
    # Engines give media ids of their own, outside the vocabulary.
    check_token_ids([each for each in prompt if each >= 0] if request.prompt.media else prompt, n_vocab)
    check_token_ids([token for token, _ in request.sampling.logit_bias], n_vocab, param="logit_bias")
    if not prompt:
        raise RequestError("the prompt has no tokens", param="prompt")
    if request.must_fit and wanted is not None and wanted > room:
        raise ContextLengthExceeded(context_length, len(prompt) + wanted, completion=wanted)
    check_token_ids(request.stop_token_ids, n_vocab, param="stop_token_ids")
    check_token_ids(request.sampling.allowed_token_ids or (), n_vocab, param="allowed_token_ids")
    limit = room if wanted is None else min(wanted, room)
    if request.generated:
        _check_continuation(request, limit, n_vocab)
    return limit


def check_prompt_length(least: int, context_length: int) -> None:
    """Raise `ContextLengthExceeded` for a prompt of at least ``least`` tokens, if those are too many."""
    if least > context_length:
        raise ContextLengthExceeded(context_length, least, at_least=True)


def check_token_ids(token_ids: Sequence[int], n_vocab: int, *, param: str = "prompt") -> None:
    """Raise `RequestError` unless every id is in the vocabulary."""
    if token_ids and not (min(token_ids) >= 0 and max(token_ids) < n_vocab):
        wrong = next(token for token in token_ids if not 0 <= token < n_vocab)
        raise RequestError(
            f"this model has no token {wrong}: token ids are between 0 and {n_vocab - 1}", param=param
        )


def check_inputs(inputs: Sequence[Sequence[int]], *, context_length: int, n_vocab: int) -> None:
    """Refuse inputs that cannot be embedded, by their place: one without tokens, one with ids outside the
    vocabulary (`RequestError`), one that is too long (`ContextLengthExceeded`)."""
    for index, token_ids in enumerate(inputs):
        place = f"input.{index}"
        if not token_ids:
            raise RequestError(f"{place} has no tokens", param=place)
        if len(token_ids) > context_length:
            raise ContextLengthExceeded(context_length, len(token_ids), prompt=place)
        try:
            check_token_ids(token_ids, n_vocab, param=place)
        except RequestError as error:
            raise RequestError(f"{error.message}. Send text, if yours are another model's", place) from None


def check_choice(request: GenerationRequest, is_end: Callable[[int], bool]) -> None:
    """Raise `RequestError` if every token that may be drawn is one that must not be; ``is_end`` says that the
    model ends an answer with a token."""
    allowed = request.sampling.allowed_token_ids
    if allowed is None or not (request.ignore_eos or request.min_tokens):
        return
    if all(is_end(token) or token in request.stop_token_ids for token in allowed):
        raise RequestError(
            "allowed_token_ids has only tokens that end the answer, which min_tokens or ignore_eos forbid",
            param="allowed_token_ids",
        )


def _check_continuation(request: GenerationRequest, limit: int, n_vocab: int) -> None:
    if len(request.generated) > limit:
        raise RequestError(
            f"{len(request.generated)} tokens were generated before, but only {limit} may be",
            param="continuation",
        )
    check_token_ids(request.generated, n_vocab, param="continuation")


def refuse_tools(tools: Sequence[Mapping[str, Any]] | None) -> None:
    """For engines without the capability "tools"."""
    if tools:
        raise UnsupportedFeature("this model's engine has no tool calling", param="tools")


def refuse_extras(request: GenerationRequest) -> None:
    """For engines without the capabilities "structured" and "adapters"."""
    if request.structure is not None:
        raise no_structures()
    refuse_adapter(request)


def refuse_adapter(request: GenerationRequest) -> None:
    """For engines without the capability "adapters"."""
    if request.adapter is not None:
        raise UnsupportedFeature("this model's engine has no adapters", param="model")


def no_adapter(name: str, known: Iterable[str]) -> UnsupportedFeature:
    """For a request that names an adapter which the model was not loaded with."""
    there = ", ".join(known) or "none"
    return UnsupportedFeature(f"the model has no adapter {name!r} (loaded: {there})", param="model")


def no_prompt_logprobs() -> UnsupportedFeature:
    """For an engine that does not tell the log probabilities of prompts."""
    return UnsupportedFeature("this model's engine does not score prompts", param="prompt_logprobs")


def no_structures() -> UnsupportedFeature:
    """For an engine without the capability "structured"."""
    return UnsupportedFeature("this model's engine has no structured output", param="response_format")


def no_chat_template(model: str) -> UnsupportedFeature:
    """For a base model that is asked to chat."""
    return UnsupportedFeature(
        f"model {model} has no chat template: it is a base model. "
        "Use /v1/completions with a plain prompt, or load an instruction-tuned model.",
        param="messages",
    )
