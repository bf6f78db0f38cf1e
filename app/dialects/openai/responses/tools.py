"""Tools of a response: their schema, and the functions that models are shown for them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from app.dialects.openai.structure import Text
from app.dialects.openai.tools import ObjectSchema
from app.schemas.common import WireModel
from engines.base import Structure, ToolUse
from engines.errors import RequestError, UnsupportedFeature

MAX_TOOL_ENTRIES = 256
# Functions that a model is shown, with those of namespaces.
MAX_FUNCTIONS = 512
MAX_TOOL_NAME = 256

# What a function's name may be for every engine and chat template.
_PLAIN = re.compile(r"[a-zA-Z0-9_-]{1,64}").fullmatch
_OTHERS = re.compile(r"[^a-zA-Z0-9_-]")
_KEPT = 55

_INPUT = "input"
_NOT_USED = "Accepted and not used."

ToolName = Annotated[str, Field(min_length=1, max_length=MAX_TOOL_NAME)]


class _Callable(WireModel):
    name: ToolName
    description: str | None = None
    defer_loading: Any = Field(None, description="Accepted and not used: the model is shown the tool.")
    allowed_callers: Any = Field(None, description=_NOT_USED)
    async_: Any = Field(None, alias="async", description=_NOT_USED)


class FunctionTool(_Callable):
    type: Literal["function"]
    parameters: ObjectSchema | None = Field(None, description="JSON schema of an object. Unset: none.")
    strict: bool | None = Field(None, description="true: calls match `parameters`.")
    output_schema: Any = Field(None, description=_NOT_USED)


class CustomFormat(WireModel):
    """The form of a custom tool's input. A grammar counts where `tool_choice` asks for this tool."""

    type: Literal["text", "grammar"] = "text"
    syntax: Literal["lark", "regex"] | None = None
    definition: Text | None = None


class CustomTool(_Callable):
    """A tool that takes text."""

    type: Literal["custom"]
    format: CustomFormat | None = None


def _flat(value: Any) -> Any:
    """A function as chat completions have it, in the form of Responses."""
    if isinstance(value, Mapping) and isinstance(function := value.get("function"), Mapping):
        return {**function, "type": value.get("type")}
    return value


OwnTool = Annotated[
    FunctionTool | CustomTool, Field(discriminator="type"), BeforeValidator(_flat, json_schema_input_type=Any)
]


class NamespaceTool(WireModel):
    """Tools under a common name."""

    type: Literal["namespace"]
    name: ToolName
    description: str | None = None
    tools: Annotated[list[OwnTool], Field(fail_fast=True, max_length=MAX_FUNCTIONS)]


def _tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
    return kind if kind in ("namespace", "function", "custom") else "hosted"


def _is_typed(value: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value.get("type"), str):
        raise ValueError("a tool has a type, such as `function`")
    return value


ResponseTools = Annotated[
    list[
        Annotated[
            Annotated[FunctionTool, Tag("function")]
            | Annotated[CustomTool, Tag("custom")]
            | Annotated[NamespaceTool, Tag("namespace")]
            | Annotated[dict[str, Any], AfterValidator(_is_typed), Tag("hosted")],
            Discriminator(_tag),
            BeforeValidator(_flat, json_schema_input_type=Any),
        ]
    ],
    Field(fail_fast=True, max_length=MAX_TOOL_ENTRIES),
]


class ResponseChoice(WireModel):
    """`function` or `custom`: this tool must be called. `allowed_tools`: only those, as `mode` says."""

    type: str = Field(description="The kind of tool, or `allowed_tools`.")
    name: str | None = Field(None, description="The tool's name.")
    namespace: str | None = Field(None, description="The namespace that it belongs to.")
    mode: Literal["auto", "required"] | None = Field(
        None, description="Of `allowed_tools`: whether one must be called."
    )
    tools: Annotated[list[dict[str, Any]], Field(max_length=MAX_FUNCTIONS)] | None = Field(
        None, description="Of `allowed_tools`: the tools."
    )


ResponseToolChoice = (
    Literal["none", "auto", "required"]
    | Annotated[ResponseChoice, BeforeValidator(_flat, json_schema_input_type=ResponseChoice)]
)


@dataclass(frozen=True, slots=True)
class ShownTool:
    """A tool of a request: ``shown`` is the name that the model knows it by."""

    kind: Literal["function", "custom"]
    shown: str
    name: str
    namespace: str | None = None
    definition: Mapping[str, Any] = field(default_factory=dict)
    form: Structure | None = None

    @property
    def own_names(self) -> dict[str, str]:
        """The fields by which a client knows it."""
        namespace = {} if self.namespace is None else {"namespace": self.namespace}
        return {"name": self.name, **namespace}


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools of one response. ``use`` is what the model may call, and how; with ``raw`` the whole answer
    is the input of that tool."""

    tools: Mapping[str, ShownTool] = field(default_factory=dict)
    use: ToolUse | None = None
    raw: ShownTool | None = None

    def shown(self, name: str, namespace: str | None, kind: str) -> str:
        """The name by which the model knows a tool that an earlier call names."""
        found = self._find(name, namespace, kind)
        return found.shown if found is not None else shown_name(name, namespace)

    def offered(self, shown: str) -> ShownTool:
        """The tool that the model calls ``shown``."""
        return self.tools.get(shown) or ShownTool("function", shown, shown)

    def _find(self, name: str | None, namespace: str | None, kind: str) -> ShownTool | None:
        wanted = (kind, name, namespace)
        return next((t for t in self.tools.values() if (t.kind, t.name, t.namespace) == wanted), None)


def toolbox(
    tools: Iterable[Any] | None,
    choice: Literal["none", "auto", "required"] | ResponseChoice | None,
    parallel: bool,
) -> Toolbox:
    """The tools of a request. Raises `RequestError` for a choice that cannot be met, and
    `UnsupportedFeature` for one of a tool that runs at OpenAI."""
    offered = _offered(tools or ())
    named = None
    if isinstance(choice, ResponseChoice):
        if choice.type == "allowed_tools":
            offered, choice = _allowed(offered, choice), choice.mode or "auto"
        else:
            named = _named(Toolbox(offered), choice.type, choice.name, choice.namespace)
    if not offered and choice not in (None, "none", "auto"):
        raise RequestError("tool_choice asks for a call, but there are no tools", param="tool_choice")
    asked = [named] if named is not None else [*offered.values()] if choice == "required" else []
    if len(asked) == 1 and asked[0].form is not None:
        return Toolbox(offered, raw=asked[0])
    if not offered or choice == "none":
        return Toolbox(offered)
    definitions = tuple(tool.definition for tool in offered.values())
    forced = None if named is None else named.shown
    return Toolbox(offered, ToolUse(definitions, choice == "required", forced, parallel))


def shown_name(name: str, namespace: str | None) -> str:
    """The name of a tool that models are shown: plain, short, and another for every other tool."""
    full = name if namespace is None else f"{namespace}__{name}"
    if _PLAIN(full):
        return full
    digest = hashlib.sha256(full.encode("utf-8", "replace")).hexdigest()
    return f"{_OTHERS.sub('_', full)[:_KEPT]}_{digest[:8]}"


def _offered(tools: Iterable[Any]) -> dict[str, ShownTool]:
    found: dict[str, ShownTool] = {}
    for tool in tools:
        members = tool.tools if isinstance(tool, NamespaceTool) else [tool]
        namespace = tool.name if isinstance(tool, NamespaceTool) else None
        for member in members:
            if not isinstance(member, _Callable):
                continue  # of a kind that runs at OpenAI: the model is not shown it
            each = _offer(member, namespace)
            if each.shown in found:
                raise RequestError(f"two tools are called {each.name}", param="tools")
            found[each.shown] = each
    if len(found) > MAX_FUNCTIONS:
        raise RequestError(f"at most {MAX_FUNCTIONS} tools, with those in namespaces", param="tools")
    return found


def _offer(tool: _Callable, namespace: str | None) -> ShownTool:
    shown = shown_name(tool.name, namespace)
    if isinstance(tool, FunctionTool):
        function = {"parameters": tool.parameters, "strict": tool.strict}
        kind: Literal["function", "custom"] = "function"
        description, form = tool.description, None
    else:
        assert isinstance(tool, CustomTool)
        kind, form = "custom", _form(tool)
        description = _told(tool)
        function = {"parameters": INPUT_SCHEMA}
    whole = {"name": shown, "description": description, **function}
    definition = {"type": "function", "function": {k: v for k, v in whole.items() if v is not None}}
    return ShownTool(kind, shown, tool.name, namespace, definition, form)


INPUT_SCHEMA = {
    "type": "object",
    "properties": {_INPUT: {"type": "string", "description": "The whole input of the tool, as text."}},
    "required": [_INPUT],
    "additionalProperties": False,
}
"""The parameters of the function that stands for a custom tool."""


def _form(tool: CustomTool) -> Structure | None:
    """The form that the input of ``tool`` must have."""
    given = tool.format
    if given is None or given.type == "text":
        return None
    if given.syntax is None or given.definition is None:
        raise RequestError(f"the grammar of {tool.name} needs `syntax` and `definition`", param="tools")
    return Structure("grammar" if given.syntax == "lark" else "regex", given.definition)


def _told(tool: CustomTool) -> str | None:
    """The description of ``tool``, with the grammar that its input is to follow."""
    form = _form(tool)
    if form is None or tool.format is None:
        return tool.description
    kind = "Lark grammar" if tool.format.syntax == "lark" else "regular expression"
    return f"{tool.description or ''}\n\nThe input must match this {kind}:\n{form.value}".strip()


def _allowed(offered: Mapping[str, ShownTool], choice: ResponseChoice) -> dict[str, ShownTool]:
    box, allowed = Toolbox(offered), {}
    for entry in choice.tools or ():
        flat = _flat(entry)
        tool = _named(box, str(flat.get("type")), flat.get("name"), flat.get("namespace"))
        allowed[tool.shown] = tool
    return {shown: tool for shown, tool in offered.items() if shown in allowed}


def _named(box: Toolbox, kind: str, name: Any, namespace: Any) -> ShownTool:
    if kind not in ("function", "custom"):
        raise UnsupportedFeature(
            f"tools of type {kind[:64]} do not run here: leave them out of tool_choice", param="tool_choice"
        )
    wanted = (name, namespace)
    for tool in box.tools.values():
        if tool.kind == kind and (tool.name, tool.namespace) == wanted:
            return tool
    raise RequestError(
        f"tool_choice names {str(name)[:64]!r}, which is none of the tools", param="tool_choice"
    )
