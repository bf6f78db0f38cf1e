"""Chat prompts: the variables that a request gives a chat template, and prompts that end in a message."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Self

from engines.base import Rendering
from engines.errors import RequestError, UnsupportedFeature

# The server's own, and the arguments of the function that renders templates for vLLM.
_SERVERS = ("messages", "tools", "add_generation_prompt", "continue_final_message", "bos_token", "eos_token")
_LIBRARYS = (
    *("conversation", "chat_template", "tokenize", "tokenizer_kwargs", "padding", "truncation", "max_length"),
    *("return_tensors", "return_dict", "return_assistant_tokens_mask", "raise_exception", "strftime_now"),
)
RESERVED = frozenset(_SERVERS + _LIBRARYS)
"""Variables that are not a request's to set."""

EFFORT = "reasoning_effort"
# What templates call the two: how much the model is to reason, and whether.
_EFFORTS = (EFFORT, "thinking_effort")
_SWITCHES = ("enable_thinking", "thinking")
# The word may stand for what was thought, too: `message.thinking`.
_ASKS = re.compile(r"(?<![.\w'\"])thinking(?= is | and | or |\s*-?%\})")
# The values that a template takes, where it refuses all others.
_TAKES = re.compile(rf"(?:{'|'.join(_EFFORTS)})\s+not in \[([^\]]*)\]")
_QUOTED = re.compile(r"""['"](\w+)['"]""")
_ORDER = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_NO_EFFORT = ("none", "no_think", "off")


def variables(rendering: Rendering, template_args: Mapping[str, Any], source: str | None) -> dict[str, Any]:
    """The variables for the template ``source``: ``template_args``, and the reasoning effort, or whether to
    reason, in the template's own terms.

    Raises `RequestError` for a variable that is the server's.

    An effort other than "none" switches reasoning on, as vLLM has it; one that the template refuses becomes
    the next that it takes. Raises `UnsupportedFeature` if the template knows neither an effort nor a switch
    but must; a model that does not reason meets "none".
    """
    if taken := RESERVED & template_args.keys():
        raise RequestError(f"{min(taken)!r} is set by the server", param="chat_template_kwargs")
    effort = rendering.reasoning_effort
    if effort is None:
        switches = {} if source is None or rendering.reasons is None else _switches(rendering.reasons, source)
        return {**switches, **template_args}
    known = {} if source is None else _known(effort, source)
    if not known and effort != "none" and rendering.must_take_effort:
        raise UnsupportedFeature(
            f"the model's chat template takes no reasoning effort: leave {EFFORT} out, or give the "
            "template's own variables in chat_template_kwargs",
            param=EFFORT,
        )
    return {**known, **template_args}


def _known(effort: str, source: str) -> dict[str, Any]:
    """The variables of the template ``source`` that say so much."""
    fitting = _fitting(effort, source)
    efforts = {name: fitting for name in _EFFORTS if name in source} if fitting else {}
    return {**efforts, **_switches(effort != "none", source)}


def _switches(reasons: bool, source: str) -> dict[str, Any]:
    """The variables of the template ``source`` that switch reasoning on or off."""
    switches = {name: reasons for name in _SWITCHES if name in source}
    if "thinking" in switches and not _ASKS.search(source):
        del switches["thinking"]
    return switches


def _fitting(effort: str, source: str) -> str | None:
    """The effort that the template takes for ``effort``; None if it takes none at all for it."""
    if (taken := _TAKES.search(source)) is None:
        return effort
    values = _QUOTED.findall(taken[1])
    if effort == "none":
        return next((value for value in values if value in _NO_EFFORT), None)
    place = _ORDER.index(effort)
    efforts = [value for value in values if value in _ORDER[1:]]
    return min(efforts, key=lambda value: abs(_ORDER.index(value) - place), default=None)


class OpenEnd:
    """The end of a prompt inside the last message, so that the answer goes on with that message's text.

    The message is marked where its text ends, and the rendered chat is cut at the mark.
    """

    def __init__(self) -> None:
        # No character of any script. `Tokenizer.guard` marks with those of another plane.
        self._mark = chr(0x100000 + secrets.randbelow(0xFFFE))

    @classmethod
    def of(cls, rendering: Rendering) -> Self | None:
        """None for a prompt that ends where its template ends it."""
        return cls() if rendering.continue_final else None

    def mark(self, messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """The messages as the template is to be given them."""
        last = messages[-1]
        # By the space behind the mark it shows whether the template strips messages.
        return [*messages[:-1], {**last, "content": f"{last['content']}{self._mark} "}]

    def cut(self, text: str) -> str:
        """The rendered chat up to the end of its last message. Raises `RequestError` if that is not in it."""
        before, mark, after = text.rpartition(self._mark)
        if not mark:
            raise RequestError(
                "the model's chat template does not show the last message, so it cannot be continued",
                param="continue_final_message",
            )
        return before if after.startswith(" ") else before.rstrip()
