"""Assembly of the parts around a running vLLM: renderer, vocabulary, parsers, adapters, description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.base import EngineInfo
from engines.load_spec import LoadSpec
from engines.models.facts import describe
from engines.models.purpose import answer_tokens
from engines.text.answers.choice import choose_format
from engines.text.answers.examples import call_writer
from engines.text.grammar import GrammarVocabulary
from engines.text.ranking.judge import can_judge
from engines.text.ranking.pair_template import is_for_pairs
from engines.text.templates.tool_prompt import WriteCall, hermes_call
from engines.text.templates.tool_template import ToolTemplate
from engines.vllm.adapters import VllmAdapters
from engines.vllm.folder import check_folder, weight_bytes
from engines.vllm.launch import Launched
from engines.vllm.media import senses_of
from engines.vllm.options import own_options
from engines.vllm.parsers import AnswerParsers, recognise_tool_parser
from engines.vllm.plans import VllmPlans
from engines.vllm.rendering import ChatRenderer
from engines.vllm.structures import BACKEND
from engines.vllm.vocabulary import VllmVocabulary


@dataclass(frozen=True, slots=True)
class Assembled:
    """The parts of an engine. ``grammar_vocabulary`` is None where vLLM keeps structures in its own way."""

    launched: Launched
    renderer: ChatRenderer
    vocabulary: VllmVocabulary
    tools: ToolTemplate
    plans: AnswerParsers | VllmPlans | None
    adapters: VllmAdapters
    grammar_vocabulary: GrammarVocabulary | None
    info: EngineInfo

    @property
    def binds_reasoning(self) -> bool:
        """Whether a structure is that of all tokens: with a parser of vLLM's own it begins behind the
        reasoning, wherever that parser sees its end."""
        return not (isinstance(self.plans, AnswerParsers) and self.plans.reasoning)


def assemble(spec: LoadSpec, launched: Launched) -> Assembled:
    """Raises `ModelLoadError`, and has closed ``launched`` then."""
    try:
        return _assemble(spec, launched)
    except BaseException:
        launched.end()
        raise


def _assemble(spec: LoadSpec, launched: Launched) -> Assembled:
    options = own_options(spec)
    renderer = ChatRenderer(launched.llm, options["chat_template"])
    template = renderer.source()
    parsers = _named_parsers(options, renderer, launched, template)
    keep_special = parsers is not None and parsers.keep_special
    n_vocab = launched.config.model_config.get_vocab_size()
    vocabulary = VllmVocabulary(
        renderer.tokenizer, n_vocab, end_ids=_end_ids(launched.llm), keep_special=keep_special
    )
    lora = launched.config.lora_config
    adapters = VllmAdapters(spec.adapters, None if lora is None else lora.max_lora_rank)
    is_ours = launched.config.structured_outputs_config.backend == BACKEND
    grammar = vocabulary.grammar_vocabulary if is_ours else None
    plans: AnswerParsers | VllmPlans | None = parsers
    write: WriteCall = hermes_call
    if plans is None and template is not None:
        response = getattr(renderer.tokenizer, "response_template", None)
        found = choose_format(template, spec.answer_format, response)
        plans, write = VllmPlans(found, vocabulary, uses_llguidance=is_ours), call_writer(found)
    pairs = spec.rerank_template or vocabulary.rerank_template
    said = answer_tokens(spec.path) if spec.path is not None else None
    capabilities = {
        "completion": True,
        "structured": True,
        "chat": template is not None and not is_for_pairs(template),
        "tools": template is not None and plans is not None and plans.tools,
        "reasoning": plans is not None and plans.reasoning,
        "adapters": launched.config.lora_config is not None,
        "fim": bool(vocabulary.fim),
        "rerank": can_judge(pairs, vocabulary, said),
    }
    senses = senses_of(launched.llm) if capabilities["chat"] else set()
    info = described(spec, launched, senses | {name for name, has in capabilities.items() if has})
    tools = ToolTemplate(renderer.render_probe, write)
    return Assembled(launched, renderer, vocabulary, tools, plans, adapters, grammar, info)


def _named_parsers(
    options: Mapping[str, str | None], renderer: ChatRenderer, launched: Launched, template: str | None
) -> AnswerParsers | None:
    """vLLM's own parsers, if the catalog names one of them."""
    tool_parser, reasoning_parser = options["tool_call_parser"], options["reasoning_parser"]
    if tool_parser is None and reasoning_parser is None:
        return None
    return AnswerParsers(
        renderer.tokenizer,
        launched.config.model_config,
        tool_parser=tool_parser or recognise_tool_parser(template),
        reasoning_parser=reasoning_parser,
    )


def _end_ids(llm: Any) -> set[int]:
    """What vLLM itself ends an answer at: the tokenizer's end token and those of the generation config."""
    own = llm.renderer.get_eos_token_id()
    more = llm.input_processor.generation_config_fields.get("eos_token_id")
    ids = {own} if more is None else {own, more} if isinstance(more, int) else {own, *more}
    return ids - {None}


def described(spec: LoadSpec, launched: Launched, capabilities: set[str], **of_vectors: Any) -> EngineInfo:
    """The facts of a loaded model; ``of_vectors`` are those of one that makes any."""
    config = launched.config
    model, scheduler = config.model_config, config.scheduler_config
    sleep = {"sleep"} if model.enable_sleep_mode else set()
    folder = check_folder(spec.path)
    weights = weight_bytes(folder)
    kind = config.device_config.device_type
    count = config.parallel_config.world_size
    return EngineInfo(
        engine="vllm",
        model=spec.name,
        context_length=model.max_model_len,
        longest_context=describe(folder).context_length,
        max_sequences=scheduler.max_num_seqs,
        devices=("cpu",) if kind == "cpu" else tuple(f"{kind}:{index}" for index in range(count)),
        capabilities=frozenset(capabilities | sleep),
        memory=weights + launched.kv_bytes,
        memory_asleep=weights,
        details={
            "version": launched.version,
            "dtype": str(model.dtype).removeprefix("torch."),
            "quantization": model.quantization,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "kv_tokens": launched.kv_tokens,
            "kv_block_size": config.cache_config.block_size,
        },
        **of_vectors,
    )
