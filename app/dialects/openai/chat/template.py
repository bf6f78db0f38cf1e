"""Fields of chat completions that say how the model's chat template makes the prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from app.dialects.openai.peers import Asks, describe_marked
from app.dialects.openai.structure import JsonObject
from app.schemas.common import WireModel
from engines.base import Rendering
from engines.errors import RequestError
from engines.text.json_values import size_of, texts_of
from engines.text.templates.chat_prompt import RESERVED

MAX_TEMPLATE_ARGS = 64
# Characters, one for each value that is no text among them.
MAX_TEMPLATE_SIZE = 64 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def _check_args(value: dict[str, Any]) -> dict[str, Any]:
    if len(value) > MAX_TEMPLATE_ARGS:
        raise ValueError(f"at most {MAX_TEMPLATE_ARGS} variables")
    for name in value:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:80]!r} is no name of a variable")
        if name in RESERVED:
            raise ValueError(f"{name!r} is set by the server")
    if size_of(texts_of(value, MAX_TEMPLATE_SIZE)) > MAX_TEMPLATE_SIZE:
        raise ValueError(f"at most {MAX_TEMPLATE_SIZE} characters together")
    return value


class TemplateFields(WireModel):
    """Fields of chat completions about the prompt, besides the messages."""

    model_config = ConfigDict(json_schema_extra=describe_marked)

    chat_template_kwargs: Annotated[JsonObject, AfterValidator(_check_args)] | None = Field(
        None,
        description="Variables for the model's chat template, such as `enable_thinking`; those that it does "
        "not have change nothing.",
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        None,
        description="For chat templates that take one; those that can only switch reasoning on or off do so, "
        "off with `none`. Other templates take `none` only.",
    )
    enable_thinking: bool | None = Field(
        None, description="The variable of that name for the model's chat template, as Qwen's API has it."
    )
    add_generation_prompt: bool | None = Field(
        None, description="false: the prompt ends behind the last message, not where an answer begins."
    )
    continue_final_message: bool | None = Field(
        None,
        description="The answer goes on with the text of the last message, which it does not repeat. Unset: "
        "if the last message is an assistant's and add_generation_prompt is unset.",
    )

    include_reasoning: Annotated[bool, Asks((True,), name="reasoning")] = Field(
        True, description="false: reasoning is not told. For models whose reasoning is told apart."
    )

    # What no engine here can do yet.
    echo: Annotated[Any, Asks((False,))] = None
    chat_template: Annotated[Any, Asks()] = None
    documents: Annotated[Any, Asks(([],))] = None
    mm_processor_kwargs: Annotated[Any, Asks(({},))] = None
    add_special_tokens: Annotated[Any, Asks((False,))] = None
    separate_reasoning: Annotated[Any, Asks((True,))] = None

    def rendering(self, messages: Sequence[Mapping[str, Any]]) -> Rendering:
        """The way in which ``messages``, as templates take them, become a prompt. Raises `RequestError`."""
        continues = self._continues(messages[-1])
        opens = self.add_generation_prompt
        return Rendering(
            template_args=self._template_args(),
            reasoning_effort=self.reasoning_effort,
            add_generation_prompt=not continues if opens is None else opens,
            continue_final=continues,
        )

    def _template_args(self) -> dict[str, Any]:
        given = self.chat_template_kwargs or {}
        return given if self.enable_thinking is None else {"enable_thinking": self.enable_thinking, **given}

    def _continues(self, last: Mapping[str, Any]) -> bool:
        has_text = isinstance(last["content"], str) and not last.get("tool_calls")
        if self.continue_final_message is None:
            return has_text and last["role"] == "assistant" and self.add_generation_prompt is None
        if self.continue_final_message and self.add_generation_prompt:
            raise RequestError(
                "an answer either goes on with the last message or is a new one: leave one of "
                "continue_final_message and add_generation_prompt out",
                param="continue_final_message",
            )
        if self.continue_final_message and not has_text:
            raise RequestError(
                "the last message has no text that an answer could go on with",
                param="continue_final_message",
            )
        return self.continue_final_message
