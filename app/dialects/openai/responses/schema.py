"""Schema of requests for responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from app.dialects.openai.chat.template import TemplateFields
from app.dialects.openai.peers import PeerFields
from app.dialects.openai.responses.items import InputItem
from app.dialects.openai.responses.tools import ResponseToolChoice, ResponseTools
from app.dialects.openai.sampling import MAX_TOKENS, MAX_TOP_LOGPROBS, MINUS_ONE_IS_NONE
from app.dialects.openai.structure import (
    Identifier,
    JsonObject,
    JsonObjectFormat,
    StructuredOutputs,
    TextFormat,
)
from app.schemas.common import WireModel

MAX_ITEMS = 4096
MAX_METADATA = 16

ResponseInput = str | Annotated[list[InputItem], Field(fail_fast=True, max_length=MAX_ITEMS)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=MAX_METADATA),
]


class SchemaFormat(WireModel):
    """A JSON schema that the text matches."""

    type: Literal["json_schema"]
    name: Identifier = Field("answer", description="What the schema is called.")
    schema_: JsonObject = Field(alias="schema", description="The JSON schema.")
    description: str | None = Field(None, description="What it is for.")
    strict: bool | None = Field(
        None,
        description="true: a schema that cannot be enforced in every part is refused. Otherwise such parts "
        "are left aside.",
    )


class TextOptions(WireModel):
    format: Annotated[TextFormat | JsonObjectFormat | SchemaFormat, Field(discriminator="type")] | None = (
        Field(None, description="A text, a JSON object, or JSON that matches a schema.")
    )
    verbosity: Any = Field(None, description="`medium` only.")


class ReasoningOptions(WireModel):
    effort: Effort | None = Field(None, description="As `reasoning_effort` of chat completions.")
    summary: Any = Field(None, description="Accepted and not used: reasoning is told whole.")
    generate_summary: Any = Field(None, description="The older name of summary.")
    context: Any = Field(None, description="Accepted and not used.")
    encrypted_content: Any = Field(None, description="Accepted and not used.")
    mode: Any = Field(None, description="Accepted and not used.")


class ResponseRequest(PeerFields, TemplateFields):
    input: ResponseInput | None = Field(None, description=f"A text, or at most {MAX_ITEMS} items.")
    instructions: str | None = Field(
        None, description="A system message in front of the input. Those of earlier responses do not count."
    )
    previous_response_id: str | None = Field(
        None, description="The stored response that this one follows: its input and output come first."
    )
    tools: ResponseTools | None = Field(
        None,
        description="Tools that the model may call. Those of types that run at OpenAI, such as `web_search`, "
        "are left out.",
    )
    tool_choice: ResponseToolChoice | None = Field(
        None,
        description="`none`: the model is not shown the tools; `auto` (the default with tools): it may call "
        "them; `required`: it must call at least one; a tool: it must call this one; `allowed_tools`: some.",
    )
    parallel_tool_calls: bool | None = Field(None, description="false: at most one call an answer.")
    reasoning: ReasoningOptions | None = Field(
        None, description="How much the model reasons, and what of it is told."
    )
    text: TextOptions | None = Field(None, description="What the answer is to look like.")
    max_output_tokens: Annotated[int | None, MINUS_ONE_IS_NONE] = Field(
        None,
        ge=1,
        le=MAX_TOKENS,
        description="Most tokens to generate. Unset or -1: up to the context's end.",
    )
    max_tokens: Annotated[int | None, MINUS_ONE_IS_NONE] = Field(
        None, ge=1, le=MAX_TOKENS, description="Another name of max_output_tokens."
    )
    top_logprobs: int | None = Field(
        None, ge=0, le=MAX_TOP_LOGPROBS, description="Likely tokens that are told beside each of the text."
    )
    include: list[str] | None = Field(
        None,
        description="What is told besides: `message.output_text.logprobs`, `reasoning.encrypted_content`.",
    )
    structured_outputs: StructuredOutputs | None = Field(
        None, description="What the text must match, under the names that vLLM gives it."
    )
    metadata: Metadata | None = Field(None, description="Told again in the response.")
    store: bool = Field(True, description="Keep the response, for as long as this server keeps any.")
    prompt_cache_key: str | None = Field(None, description="Told again, and not used.")
    safety_identifier: str | None = Field(None, description="Told again, and not used.")
    max_tool_calls: int | None = Field(None, description="Of tools that run at OpenAI. Told again.")

    # What becomes of these says the table in refusals.py.
    access_programs: Any = Field(None, description="Accepted and not used.")
    background: Any = Field(None, description="false only: answers come to who waits for them.")
    background_options: Any = Field(None, description="Accepted and not used.")
    client_metadata: Any = Field(None, description="Accepted and not used.")
    context_management: Any = Field(None, description="Refused where it asks for something.")
    conversation: Any = Field(None, description="Refused: send `input`, or `previous_response_id`.")
    image: Any = Field(None, description="Accepted and not used.")
    moderation: Any = Field(None, description="Refused where it asks for something.")
    prompt: Any = Field(None, description="Refused: prompts are not stored here.")
    prompt_cache_options: Any = Field(None, description="Accepted and not used.")
    prompt_cache_retention: Any = Field(None, description="Accepted and not used.")
    service_tier: Any = Field(None, description="Accepted and not used.")
    truncation: Any = Field(None, description="`disabled` only: what is too long is refused.")

    @model_validator(mode="after")
    def _limits_have_one_value(self) -> Self:
        if (
            None not in (self.max_tokens, self.max_output_tokens)
            and self.max_tokens != self.max_output_tokens
        ):
            raise ValueError("max_tokens is another name of max_output_tokens: give one of them")
        return self

    @property
    def limit(self) -> int | None:
        return self.max_output_tokens if self.max_output_tokens is not None else self.max_tokens

    @property
    def effort(self) -> Effort | None:
        return self.reasoning.effort if self.reasoning is not None else None
