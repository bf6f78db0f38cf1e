"""Fields that other servers add to OpenAI's API: vLLM, llama.cpp, SGLang, Ollama, LM Studio, TGI.

They change the answer, so none is ignored. A field with `Asks` is a capability that not every engine has, and
that some have none of yet; the engine refuses it by name unless its value asks for nothing. Requests that
other servers answer are passed on with all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.dialects.openai.sampling import MAX_TOKENS, MAX_TOP_LOGPROBS, SamplingFields, TokenId
from app.dialects.openai.structure import JsonSchema, Text, Texts, check_text
from app.inference.capabilities import FEATURES
from app.schemas.common import document_known_fields
from engines.base import NOTHING_RARE, RareSampling, Sampling, Structure
from engines.errors import RequestError
from engines.text.answers.tool_use import json_schema

MAX_STOP_TOKENS = 1024
# Of all answers together, as they are looked through for each.
MAX_ALLOWED_TOKENS = 2**17
MAX_BAD_WORDS = 128
MAX_BAD_WORD = 128

BadWord = Annotated[str, Field(pattern=r"\S", max_length=MAX_BAD_WORD), AfterValidator(check_text)]


@dataclass(frozen=True, slots=True)
class Asks:
    """Mark of a field that asks an engine for a capability: that of ``name``, else of the field's own name.

    The values ``neutral`` ask for nothing, as does null. A field ``of`` others only counts where one of them
    is not at its default.
    """

    neutral: tuple[Any, ...] = ()
    name: str | None = None
    of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CountsWith:
    """Mark of a field that says more about another one, and changes nothing while that one is neutral."""

    name: str


def describe_marked(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Describe, in a model's JSON ``schema``, the fields that have nothing but a mark."""
    document_known_fields(schema)
    for name, field in model.model_fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, Asks | CountsWith)]
        if marks and field.description is None and name in schema["properties"]:
            schema["properties"][name]["description"] = _described(name, marks[0])


def _described(name: str, mark: Asks | CountsWith) -> str:
    if isinstance(mark, CountsWith):
        return f"Counts with `{mark.name}`."
    return f"Only for engines that have it: {FEATURES[mark.name or name]}; others refuse it by name."


# What is made of the fields that say what the answer must match.
STRUCTURES: dict[str, Callable[[Any], Structure]] = {
    "guided_json": json_schema,
    "guided_regex": lambda value: Structure("regex", value),
    "guided_choice": lambda value: Structure("choice", choices=tuple(value)),
    "guided_grammar": lambda value: Structure("grammar", value),
    "json_schema": json_schema,
    "regex": lambda value: Structure("regex", value),
    "ebnf": lambda value: Structure("grammar", value),
    "grammar": lambda value: Structure("grammar", value),
}
# Most requests have none of these; a set says so at once.
_OF_STRUCTURE = frozenset(STRUCTURES)
_RARE = frozenset(each.name for each in fields(RareSampling))
_OF_SAMPLING = _RARE | {"typical_p", "allowed_token_ids", "bad_words"}
PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


class PeerFields(SamplingFields):
    """The fields that chat and text completions have in common, with those of other servers."""

    model_config = ConfigDict(json_schema_extra=describe_marked)

    repeat_penalty: float | None = Field(
        None, gt=0, le=10, description="Another name of repetition_penalty, from llama.cpp."
    )
    n_predict: int | None = Field(
        None, ge=-1, le=MAX_TOKENS, description="Another name of max_tokens, from llama.cpp; -1: no limit."
    )
    num_predict: int | None = Field(None, ge=-1, le=MAX_TOKENS, description="The same, from Ollama.")
    typical_p: Annotated[float, Asks((1.0,))] = Field(
        1.0, gt=0, le=1, description="Keep the most typical tokens up to this probability; 1: all."
    )
    stop_token_ids: Annotated[list[TokenId], Field(fail_fast=True, max_length=MAX_STOP_TOKENS)] | None = (
        Field(None, description="Tokens that end the answer, also with ignore_eos.")
    )
    include_stop_str_in_output: bool = Field(
        False, description="Leave the stop string, or the text of the stop token, in the answer."
    )
    skip_special_tokens: bool = Field(True, description="false: special tokens are part of the text.")
    bad_words: Annotated[list[BadWord], Field(fail_fast=True, max_length=MAX_BAD_WORDS)] | None = Field(
        None, description="Texts that are not generated."
    )
    allowed_token_ids: (
        Annotated[list[TokenId], Field(fail_fast=True, min_length=1, max_length=MAX_ALLOWED_TOKENS)] | None
    ) = Field(None, description="The only tokens that may be generated.")
    return_token_ids: bool = Field(
        False, description="Tell the token ids of the prompt and of the answer too, as vLLM does."
    )

    prompt_logprobs: Annotated[int | None, Asks()] = Field(
        None,
        ge=0,
        le=MAX_TOP_LOGPROBS,
        description="Tell the log probabilities of the prompt, with so many alternatives a token.",
    )

    # Structure under the names that vLLM, llama.cpp and SGLang gave it.
    guided_json: JsonSchema | None = Field(None, description="`structured_outputs.json`.")
    guided_regex: Text | None = Field(None, description="`structured_outputs.regex`.")
    guided_choice: Texts | None = Field(None, description="`structured_outputs.choice`.")
    guided_grammar: Text | None = Field(None, description="`structured_outputs.grammar`.")
    json_schema: JsonSchema | None = Field(None, description="`structured_outputs.json`.")
    regex: Text | None = Field(None, description="`structured_outputs.regex`.")
    ebnf: Text | None = Field(None, description="`structured_outputs.grammar`.")
    grammar: Annotated[str, AfterValidator(check_text)] | None = Field(
        None, description="`structured_outputs.grammar`; empty: none."
    )

    # What only llama.cpp's samplers can do.
    repeat_last_n: Annotated[int, Asks((-1,), of=PENALTIES)] = Field(
        -1, ge=-1, le=MAX_TOKENS, description="Penalties see so many of the last tokens; 0: none; -1: all."
    )
    mirostat: Annotated[Literal[0, 1, 2], Asks((0,))] = Field(
        0, description="1 or 2: Mirostat, in the place of the other filters."
    )
    mirostat_tau: Annotated[float, CountsWith("mirostat")] = Field(
        5.0, ge=0, le=100, description="Of Mirostat: how surprising the text is to be."
    )
    mirostat_eta: Annotated[float, CountsWith("mirostat")] = Field(
        0.1, ge=0, le=1, description="Of Mirostat: how fast it adapts."
    )
    xtc_probability: Annotated[float, Asks((0,))] = Field(
        0.0, ge=0, le=1, description="How often the most likely tokens are left out (XTC)."
    )
    xtc_threshold: Annotated[float, CountsWith("xtc_probability")] = Field(
        0.1, ge=0, le=1, description="Of XTC: from which probability on tokens are likely."
    )
    top_n_sigma: Annotated[float, Asks((-1, 0))] = Field(
        0.0, ge=-1, le=1000, description="Keep tokens within so many standard deviations of the best; 0: all."
    )
    dynatemp_range: Annotated[float, Asks((0,))] = Field(
        0.0, ge=0, le=2, description="How far the temperature may move, by how sure the model is."
    )
    dynatemp_exponent: Annotated[float, CountsWith("dynatemp_range")] = Field(
        1.0, ge=0, le=10, description="Of dynamic temperature: how it follows the model's doubt."
    )

    # What no engine here can do yet.
    min_keep: Annotated[Any, Asks((0, 1))] = None
    dry_multiplier: Annotated[Any, Asks((0,))] = None
    dry_base: Annotated[Any, CountsWith("dry_multiplier")] = None
    dry_allowed_length: Annotated[Any, CountsWith("dry_multiplier")] = None
    dry_penalty_last_n: Annotated[Any, CountsWith("dry_multiplier")] = None
    dry_sequence_breakers: Annotated[Any, CountsWith("dry_multiplier")] = None
    samplers: Annotated[Any, Asks(([],))] = None
    logits_processors: Annotated[Any, Asks(([],))] = None
    custom_logit_processor: Annotated[Any, Asks(("",), name="logits_processors")] = None
    use_beam_search: Annotated[Any, Asks((False,))] = None
    length_penalty: Annotated[Any, CountsWith("use_beam_search")] = None
    early_stopping: Annotated[Any, CountsWith("use_beam_search")] = None
    stop_regex: Annotated[Any, Asks(("", []))] = None
    repetition_detection: Annotated[Any, Asks()] = None
    thinking_token_budget: Annotated[Any, Asks((-1,))] = None
    t_max_predict_ms: Annotated[Any, Asks((0, -1))] = None
    vllm_xargs: Annotated[Any, Asks(({},))] = None
    lora: Annotated[Any, Asks(([],))] = None
    truncate_prompt_tokens: Annotated[Any, Asks()] = None
    cache_salt: Annotated[Any, Asks()] = None
    n_probs: Annotated[Any, Asks((0,))] = None
    logprob_token_ids: Annotated[Any, Asks(([],))] = None
    return_tokens_as_token_ids: Annotated[Any, Asks((False,))] = None
    spaces_between_special_tokens: Annotated[Any, Asks((True,))] = None
    return_hidden_states: Annotated[Any, Asks((False,))] = None

    # They change nothing about the answer here.
    cache_prompt: Any = Field(None, description="Accepted and not used.")
    id_slot: Any = Field(None, description="Accepted and not used.")

    @model_validator(mode="after")
    def _prompt_logprobs_come_whole(self) -> Self:
        if self.prompt_logprobs is not None and self.stream:
            raise ValueError("prompt_logprobs are only told when stream is false")
        return self

    @model_validator(mode="after")
    def _other_names(self) -> Self:
        _rename(self, "repeat_penalty", "repetition_penalty", self.repeat_penalty)
        for name in ("n_predict", "num_predict"):
            value = getattr(self, name)
            if value is not None:
                _rename(self, name, "max_tokens", None if value < 0 else value, was_given=True)
        return self

    def sampling(self) -> Sampling:
        sampling, allowed = super().sampling(), self.allowed_token_ids
        if self.model_fields_set.isdisjoint(_OF_SAMPLING):  # nearly always
            return sampling
        return replace(
            sampling,
            typical_p=self.typical_p,
            allowed_token_ids=None if allowed is None else tuple(allowed),
            bad_words=tuple(self.bad_words or ()),
            rare=self._rare_sampling(),
        )

    def check_lists(self, answers: int) -> None:
        """Raise `RequestError` if lists are too long to be looked through for each of ``answers``."""
        for name, values, most in (
            ("bad_words", self.bad_words, MAX_BAD_WORDS),
            ("allowed_token_ids", self.allowed_token_ids, MAX_ALLOWED_TOKENS),
        ):
            if values and len(values) * answers > most:
                size = len(values) * answers
                message = f"{name} of all answers together are {size}, but {most} at most may be"
                raise RequestError(message, param=name)

    def structures(self) -> dict[str, Structure]:
        """The structures that this request asks for in these fields."""
        if self.model_fields_set.isdisjoint(_OF_STRUCTURE):
            return {}
        given = [name for name in STRUCTURES if name in self.model_fields_set]
        return {name: STRUCTURES[name](v) for name in given if (v := getattr(self, name)) not in (None, "")}

    def _rare_sampling(self) -> RareSampling:
        given = _RARE & self.model_fields_set
        return RareSampling(**{name: getattr(self, name) for name in given}) if given else NOTHING_RARE

    def needs(self) -> dict[str, str]:
        """The capabilities that this request asks an engine for, each with the field that does."""
        given, known = self.model_fields_set, asked_capabilities(type(self))
        if given.isdisjoint(_asking(type(self))):
            return {}
        asking = [name for name in known if name in given]
        return {known[name].name or name: name for name in asking if self._asks(name, known[name])}

    def _asks(self, name: str, asks: Asks) -> bool:
        value = getattr(self, name)
        if value is None or value in asks.neutral:
            return False
        defaults = type(self).model_fields
        return not asks.of or any(getattr(self, each) != defaults[each].default for each in asks.of)


@cache
def asked_capabilities(schema: type[BaseModel]) -> Mapping[str, Asks]:
    """The fields of ``schema`` that ask an engine for a capability."""
    marks = ((name, mark) for name, field in schema.model_fields.items() for mark in field.metadata)
    return {name: mark for name, mark in marks if isinstance(mark, Asks)}


@cache
def _asking(schema: type[BaseModel]) -> frozenset[str]:
    return frozenset(asked_capabilities(schema))


def _rename(body: BaseModel, name: str, proper: str, value: Any, *, was_given: bool = False) -> None:
    """Set the field ``proper`` to what was given as ``name``. Raises `ValueError` if they differ."""
    if value is None and not was_given:
        return
    if proper in body.model_fields_set and getattr(body, proper) not in (None, value):
        raise ValueError(f"{name} is another name of {proper}: give one of them")
    setattr(body, proper, value)
