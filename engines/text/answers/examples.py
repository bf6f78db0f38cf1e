"""Examples of calls, for models whose chat templates show none."""

from __future__ import annotations

from engines.text.answers.format import Format, NamedCall
from engines.text.templates.tool_prompt import WriteCall, hermes_call


def call_writer(format: Format) -> WriteCall:
    """What writes a call in ``format``, if that is simple, else in the way that most models have read of."""
    shape = format.call
    if not isinstance(shape, NamedCall) or shape.name_in_id:
        return hermes_call

    def write(name: str, arguments: str) -> str:
        call = f"{shape.before_name}{name}{shape.before_arguments}{arguments}{shape.after_arguments}"
        inner = f"{format.call_begin}{call}{format.call_end}"
        return f"{format.section_begin}{inner}{format.section_end}"

    return write
