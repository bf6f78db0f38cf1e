"""vLLM's sampling parameters for our requests, and our errors for its complaints."""

from __future__ import annotations

from collections import Counter
from typing import Any

from engines.base import GenerationRequest
from engines.errors import RequestError
from engines.vllm.structures import structured_outputs

_PARAMETERS = {"structured_outputs": "response_format", "max_logprobs": "logprobs"}


def sampling_params(request: GenerationRequest, limit: int, *, uses_llguidance: bool = True) -> Any:
    """``SamplingParams`` for an answer of at most ``limit`` tokens. Raises `RequestError`.

    Text is made here, not in vLLM (see ``stream.py``), so stop strings are not passed on. What was
    generated elsewhere is prompt to vLLM. A structure that is complete ends the answer: vLLM would forbid
    that for ``min_tokens``, and go on without a structure for ``ignore_eos``.
    """
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    sampling, seed, is_bound = request.sampling, request.generator_seed, request.structure is not None
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
            min_tokens=0 if is_bound else max(0, min(request.min_tokens, limit) - len(request.generated)),
            ignore_eos=request.ignore_eos and not is_bound,
            # vLLM has the one or the other.
            logprobs=None if request.logprob_token_ids else request.logprobs,
            logprob_token_ids=[*request.logprob_token_ids] or None,
            prompt_logprobs=request.prompt_logprobs,
            structured_outputs=structured_outputs(request.structure, uses_llguidance=uses_llguidance),
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
