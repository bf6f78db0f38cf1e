"""vLLM's sampling parameters for our requests, and our errors for its complaints."""

from __future__ import annotations

from collections import Counter
from typing import Any

from engines.base import GenerationRequest, Structure
from engines.errors import RequestError

_PARAMETERS = {"structured_outputs": "response_format", "max_logprobs": "logprobs"}


def sampling_params(request: GenerationRequest, limit: int) -> Any:
    """``SamplingParams`` for an answer of at most ``limit`` tokens. Raises `RequestError`.

    Text is made here, not in vLLM (see ``stream.py``), so stop strings are not passed on. What was
    generated elsewhere is prompt to vLLM.
    """
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    sampling, seed = request.sampling, request.generator_seed
    try:
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            logit_bias=_logit_bias(request) or None,
            allowed_token_ids=None if sampling.allowed_token_ids is None else [*sampling.allowed_token_ids],
            bad_words=[*sampling.bad_words],
            stop_token_ids=[*request.stop_token_ids],
            seed=None if seed is None else seed % 2**63,
            max_tokens=max(1, limit - len(request.generated)),  # what is too much is not told
            min_tokens=max(0, min(request.min_tokens, limit) - len(request.generated)),
            ignore_eos=request.ignore_eos,
            logprobs=request.logprobs,
            prompt_logprobs=request.prompt_logprobs,
            structured_outputs=structured_outputs(request.structure),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
    except (ValueError, _client_error()) as error:
        raise request_error(error) from error


def _logit_bias(request: GenerationRequest) -> dict[int, float]:
    """The request's, with the penalties on tokens that were generated elsewhere.

    vLLM's penalties see only what vLLM generated. That of frequency adds up, so this is exact; that of
    presence counts twice for a token that comes again, which is nearer the truth than not at all until
    then; that of repetition sees prompts too and needs nothing.
    """
    sampling = request.sampling
    bias = dict(sampling.logit_bias)
    if sampling.frequency_penalty or sampling.presence_penalty:
        for token, count in Counter(request.generated).items():
            penalty = sampling.frequency_penalty * count + sampling.presence_penalty
            bias[token] = bias.get(token, 0.0) - penalty
    return bias


def structured_outputs(structure: Structure | None) -> Any:
    """``StructuredOutputsParams``, or None."""
    if structure is None:
        return None
    from vllm.sampling_params import StructuredOutputsParams

    match structure.kind:
        case "json_object":
            return StructuredOutputsParams(json_object=True)
        case "json_schema":
            return StructuredOutputsParams(json=structure.value)
        case "regex":
            return StructuredOutputsParams(regex=structure.value)
        case "choice":
            return StructuredOutputsParams(choice=list(structure.choices))
        case "grammar":
            return StructuredOutputsParams(grammar=structure.value)


def may_be_invalid(request: GenerationRequest) -> bool:
    """Whether only the loaded model can tell if the request is valid."""
    sampling = request.sampling
    lists = sampling.allowed_token_ids is not None or sampling.bad_words
    return bool(request.structure or request.logprobs or lists or _logit_bias(request))


def is_request_fault(error: BaseException) -> bool:
    """Whether vLLM blames the request rather than itself."""
    return isinstance(error, (ValueError, _client_error()))


def request_error(error: BaseException) -> RequestError:
    """vLLM's refusal as ours, with the field at fault under the name that clients know."""
    parameter = getattr(error, "parameter", None)
    message = str(error.args[0]) if error.args else str(error)
    return RequestError(message.strip(), param=_PARAMETERS.get(parameter or "", parameter))


def _client_error() -> type[Exception]:
    from vllm import exceptions

    error: type[Exception] = exceptions.VLLMClientError
    return error
