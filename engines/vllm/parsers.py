"""Tool calls and reasoning, told apart by vLLM's own parsers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engines.base import AnswerDelta, Prompt, Structure, ToolCallDelta, ToolUse
from engines.errors import CannotLoad, EngineError, RequestError
from engines.text.answers.forced_calls import forced_plan
from engines.text.answers.output import NOTHING
from engines.text.answers.plan import Plan
from engines.vllm.plans import refuse_both

# Marks in chat templates by which well-known formats of tool calls are recognised, most specific first.
_KNOWN_FORMATS = (
    ("<function=", "qwen3_coder"),
    ("<|python_tag|>", "llama3_json"),
    ("[TOOL_CALLS]", "mistral"),
    ("<tool_call>", "hermes"),
)


def recognise_tool_parser(template: str | None) -> str | None:
    """The name of vLLM's parser for the tool calls that a chat template teaches; None if unsure."""
    if not template or "tools" not in template:
        return None
    return next((parser for mark, parser in _KNOWN_FORMATS if mark in template), None)


class AnswerParsers:
    """Makes a parser for each answer of one model."""

    def __init__(
        self, tokenizer: Any, model_config: Any, *, tool_parser: str | None, reasoning_parser: str | None
    ) -> None:
        """Parsers by the names that ``vllm serve`` gives them. Raises `ModelLoadError` for unknown ones."""
        self._tokenizer = tokenizer
        self._model_config = model_config
        self.tools = tool_parser is not None
        self.reasoning = reasoning_parser is not None
        self._parser_class = _find(tool_parser, reasoning_parser, tokenizer)
        self.keep_special = self._needs_special_tokens()

    def plan(self, tools: ToolUse | None, prompt: Prompt, structure: Structure | None) -> Plan | None:
        """The plan of answers to ``prompt``; None where all text is content. Raises `RequestError` for
        malformed tools."""
        if tools is not None and tools.is_forced:
            return forced_plan(tools, lambda: self.make(None, prompt) if self.reasoning else None)
        if structure is not None:
            refuse_both(tools)
        definitions = None if tools is None else tools.definitions
        first = self.make(definitions, prompt)
        if first is None:
            return None
        # Most prompts have one answer, whose reader is there already.
        made = [first]
        return Plan(lambda: made.pop() if made else self.make(definitions, prompt), tools, structure)

    def make(self, tools: Sequence[Mapping[str, Any]] | None, prompt: Prompt | None = None) -> Any:
        """A `VllmAnswerReader`; None where all text is content. Raises `RequestError` for malformed tools."""
        if self._parser_class is None or (not tools and not self.reasoning):
            return None
        given = {} if prompt is None else dict(prompt.variables)
        request = _chat_request(tools, given)
        parser = self._parser_class(
            self._tokenizer, request.tools, model_config=self._model_config, chat_template_kwargs=given
        )
        if prompt is not None:
            return VllmAnswerReader(parser, request, list(prompt.token_ids))
        # vLLM looks for tool calls only once it has seen by the prompt that no reasoning is open.
        return VllmAnswerReader(parser, request, None if self.reasoning else [])

    def _needs_special_tokens(self) -> bool:
        """Whether the parsers look for text that is a special token of this model."""
        if self._parser_class is None:
            return False
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        request = _chat_request([tool] if self.tools else None)
        parser = self._parser_class(self._tokenizer, request.tools, model_config=self._model_config)
        return not parser.adjust_request(request).skip_special_tokens


class VllmAnswerReader:
    """`AnswerReader` of one answer, by vLLM's parser."""

    def __init__(self, parser: Any, request: Any, prompt: list[int] | None) -> None:
        self._parser = parser
        self._request = request
        self._prompt = prompt
        self.in_reasoning = False

    def feed(self, text: str, token: int, special: str = "") -> AnswerDelta:
        """Raises `EngineError` for an answer that the parser cannot take."""
        tokens = [token] if token >= 0 else []
        delta = self._parse(text or special, tokens, finished=False)
        if delta != NOTHING:
            self.in_reasoning = bool(delta.reasoning) and not (delta.content or delta.tool_calls)
        return delta

    def finish(self) -> AnswerDelta:
        return self._parse("", [], finished=True)

    def _parse(self, text: str, tokens: list[int], *, finished: bool) -> AnswerDelta:
        try:
            delta = self._parser.parse_delta(
                text, tokens, self._request, prompt_token_ids=self._prompt, finished=finished
            )
        except Exception as error:
            raise EngineError(f"vLLM's parser failed on the model's answer: {error!r}") from error
        if delta is None:
            return NOTHING
        reasoning = getattr(delta, "reasoning", None)
        return AnswerDelta(
            delta.content or "", reasoning or "", tuple(map(_tool_call, delta.tool_calls or ()))
        )


def _tool_call(call: Any) -> ToolCallDelta:
    function = call.function
    name, arguments = (function.name, function.arguments) if function else (None, None)
    return ToolCallDelta(call.index, call.id if name else None, name, arguments or "")


def _chat_request(
    tools: Sequence[Mapping[str, Any]] | None, template_args: Mapping[str, Any] | None = None
) -> Any:
    from pydantic import ValidationError
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    fields: dict[str, Any] = {"messages": [{"role": "user", "content": ""}]}
    if template_args:
        fields["chat_template_kwargs"] = template_args
    if tools:
        fields |= {"tools": [dict(tool) for tool in tools], "tool_choice": "auto"}
    try:
        return ChatCompletionRequest(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(f"a tool is malformed: {first['msg']}", param="tools") from error


def _find(tool_parser: str | None, reasoning_parser: str | None, tokenizer: Any) -> Any:
    from vllm.parser.parser_manager import ParserManager

    try:
        return ParserManager.get_parser(
            tool_parser_name=tool_parser,
            reasoning_parser_name=reasoning_parser,
            enable_auto_tools=tool_parser is not None,
            tokenizer=tokenizer,
        )
    except (TypeError, KeyError) as error:
        names = " and ".join(name for name in (tool_parser, reasoning_parser) if name)
        raise CannotLoad(f"vLLM's parser {names} cannot be used: {error}") from error
