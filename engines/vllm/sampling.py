"""From our requests to vLLM's parameters, and from its complaints to our errors."""

from __future__ import annotations

from typing import Any

from engines.base import GenerationRequest, Structure
from engines.errors import RequestError

_PARAMETERS = {"structured_outputs": "response_format", "max_logprobs": "logprobs"}


def sampling_params(request: GenerationRequest, limit: int) -> Any:
    """``SamplingParams`` for at most ``limit`` tokens. Raises `RequestError`.

    Text is made here, not in vLLM (see ``stream.py``), so stop strings are not passed on.
    """
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    sampling = request.sampling
    try:
        return SamplingParams(
            temperature=max(0.0, sampling.temperature),
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            logit_bias=dict(sampling.logit_bias) or None,
            seed=None if sampling.seed is None else sampling.seed % 2**63,
            max_tokens=limit,
            min_tokens=request.min_tokens,
            ignore_eos=request.ignore_eos,
            logprobs=request.logprobs,
            structured_outputs=structured_outputs(request.structure),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
    except (ValueError, _client_error()) as error:
        raise request_error(error) from error


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
    return bool(request.structure or request.logprobs or request.sampling.logit_bias)


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
