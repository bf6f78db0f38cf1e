"""Capabilities: what a task needs that not every engine has, and whether an engine has it."""

from __future__ import annotations

from collections.abc import Mapping

from engines.base import EngineInfo
from engines.descriptor import EngineDescriptor
from engines.errors import UnsupportedFeature
from engines.registry import ENGINES

FEATURES = {
    "tools": "tool calling",
    "structured": "structured output",
    "adapters": "LoRA adapters",
    "fim": "way to fill in the middle",
    "vision": "image input",
    "audio": "audio input",
    "reasoning": "parser that tells reasoning apart",
    "embeddings": "embeddings",
    "rerank": "reranking",
    # Ways of drawing tokens.
    "typical_p": "typical sampling",
    "min_keep": "least number of tokens that filters leave",
    "mirostat": "Mirostat sampling",
    "dry_multiplier": "DRY penalty",
    "xtc_probability": "XTC sampling",
    "top_n_sigma": "top-n-sigma sampling",
    "dynatemp_range": "dynamic temperature",
    "samplers": "choice of the samplers' order",
    "repeat_last_n": "window of the penalties (they see all tokens)",
    "logits_processors": "logits processors of requests",
    "use_beam_search": "beam search",
    "stop_regex": "stopping at regular expressions",
    "repetition_detection": "detection of repetitions",
    "thinking_token_budget": "budget of reasoning tokens",
    "t_max_predict_ms": "limit of a request's time",
    "vllm_xargs": "arguments of vLLM's plugins",
    "lora": "choice of adapters by number (a model's adapters are chosen by name, as `model`)",
    # Prompts.
    "truncate_prompt_tokens": "truncation of prompts",
    "add_special_tokens": "special tokens in front of a rendered chat",
    "cache_salt": "separation of prefix caches",
    "chat_template": "chat templates of requests",
    "documents": "documents beside the messages",
    "mm_processor_kwargs": "input other than text",
    # Answers.
    "prompt_logprobs": "log probabilities of the prompt",
    "n_probs": "log probabilities by that name (ask for logprobs)",
    "logprob_token_ids": "log probabilities of chosen tokens",
    "return_tokens_as_token_ids": "log probabilities by token id",
    "spaces_between_special_tokens": "way of leaving out spaces between special tokens",
    "return_hidden_states": "hidden states",
    "echo": "repetition of the last message in front of the answer",
    "separate_reasoning": "way of leaving reasoning in the content",
}
"""What each capability is, for people."""

HELP = {
    "tools": "its chat template shows no tools: use a model that was made to call them",
    "structured": "its vocabulary cannot be restricted: ask without it",
    "adapters": "it takes none: only models that generate text do",
    "reasoning": "its chat template knows of no reasoning: use a model that reasons",
    "vision": "it was made for text: GET /v1/models tells which models take images (`vision`)",
    "audio": "it was not made for that: GET /v1/models tells which models take audio (`audio`)",
    "fim": "its vocabulary has no tokens for that; code models such as Qwen2.5-Coder have them",
    "embeddings": "it was made to generate text: GET /v1/models tells which models make embeddings",
    "rerank": "it was not made to: GET /v1/models tells which models rerank",
}
"""What to do about a model that lacks a capability which others have on the same engine; engines may know
better."""


def check_generates(engine: EngineInfo) -> None:
    """Raise `UnsupportedFeature` unless ``engine`` generates text."""
    if not engine.capabilities & {"chat", "completion"}:
        raise UnsupportedFeature(f"model {engine.model} generates no text: {_uses(engine)}", param="model")


def _uses(engine: EngineInfo) -> str:
    """What a model that generates no text is for."""
    if "rerank" in engine.capabilities:
        return "it tells how relevant documents are (/v1/rerank)"
    return "it makes embeddings (/v1/embeddings)"


def check(needs: Mapping[str, str], engine: EngineInfo) -> None:
    """Raise `UnsupportedFeature` for what ``engine`` cannot do: it is never ignored.

    ``needs`` pairs a capability with the field of the request that asks for it.
    """
    if not needs:
        return
    descriptor = ENGINES.get(engine.engine)
    able = engine.capabilities if descriptor is None else engine.capabilities | descriptor.request_fields
    for capability, param in needs.items():
        if capability not in able:
            raise UnsupportedFeature(_refusal(capability, param, engine, descriptor), param=param)


def _refusal(capability: str, param: str, engine: EngineInfo, descriptor: EngineDescriptor | None) -> str:
    feature = FEATURES[capability]
    label = engine.engine if descriptor is None else descriptor.label
    if descriptor is not None and capability in descriptor.capabilities:
        help = descriptor.help.get(capability) or HELP.get(capability, f"{label} lacks it here")
        return f"model {engine.model} has no {feature}: {help}"
    able = [each.label for each in ENGINES.values() if capability in each.capabilities | each.request_fields]
    advice = f"load it with {' or '.join(able)}" if able else f"leave `{param}` out"
    return f"model {engine.model} runs on {label}, which has no {feature} yet: {advice}"
