"""The known formats of answers, most specific first: a template's is the first whose signs it has."""

from __future__ import annotations

from engines.text.answers.format import (
    ChannelCall,
    Format,
    JsonCall,
    NamedCall,
    NotationCall,
    PythonCall,
    Reasoning,
    TaggedCall,
)

THINK = Reasoning("<think>", "</think>")
# All that is known besides a format's own: a template's signs tell which one a model writes.
REASONINGS = (
    THINK,
    Reasoning("[THINK]", "[/THINK]"),
    Reasoning("<|channel>thought\n", "<channel|>"),
    Reasoning("<reasoning>", "</reasoning>"),
    Reasoning("<|START_THINKING|>", "<|END_THINKING|>"),
    Reasoning("<seed:think>", "</seed:think>"),
)

_XML_CALL = TaggedCall(
    before_name="<function=",
    after_name=">",
    before_key="<parameter=",
    after_key=">",
    after_value="</parameter>",
    after_parameters="</function>",
    lines=True,
    between="\n",
)
_XML_TOKENS = ("<tool_call>", "</tool_call>", "<think>", "</think>")
_PARAMETERS_CALL = JsonCall(argument_keys=("parameters", "arguments"))

HERMES = Format(
    name="hermes",
    call=JsonCall(),
    also=(_XML_CALL,),
    signs=("<tool_call>",),
    reasonings=(THINK,),
    call_begin="<tool_call>",
    call_end="</tool_call>",
    before_calls="\n",
    between_calls="\n",
    bare=True,
    tokens=_XML_TOKENS,
)

QWEN_XML = Format(
    name="qwen3-xml",
    call=_XML_CALL,
    also=(JsonCall(),),
    signs=("<function=", "<parameter="),
    reasonings=(THINK,),
    call_begin="<tool_call>",
    call_end="</tool_call>",
    before_calls="\n\n",
    between_calls="\n",
    bare=True,
    tokens=_XML_TOKENS,
)

LLAMA3 = Format(
    name="llama3-json",
    call=_PARAMETERS_CALL,
    signs=("<|start_header_id|>", '"parameters"'),
    between_calls="; ",
    call_begin="<|python_tag|>",
    bare=True,
    tokens=("<|python_tag|>",),
)

LLAMA4 = Format(
    name="llama4-pythonic",
    call=PythonCall(),
    also=(_PARAMETERS_CALL,),
    signs=("<|header_start|>",),
    call_begin="<|python_start|>",
    call_end="<|python_end|>",
    bare=True,
    tokens=("<|python_start|>", "<|python_end|>"),
)

_MISTRAL_CALL = NamedCall(before_id="[CALL_ID]", before_arguments="[ARGS]")
_MISTRAL_REASONINGS = (Reasoning("[THINK]", "[/THINK]"), THINK)

MISTRAL_V3 = Format(
    name="mistral-v3",
    call=JsonCall(listed=True),
    also=(_MISTRAL_CALL,),
    signs=("[TOOL_CALLS]",),
    reasonings=_MISTRAL_REASONINGS,
    call_begin="[TOOL_CALLS]",
    between_calls=", ",
    tokens=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"),
    control=True,
)

MISTRAL_V11 = Format(
    name="mistral-v11",
    call=_MISTRAL_CALL,
    also=(JsonCall(listed=True),),
    signs=("[TOOL_CALLS]", "[ARGS]"),
    reasonings=_MISTRAL_REASONINGS,
    call_begin="[TOOL_CALLS]",
    tokens=MISTRAL_V3.tokens,
    control=True,
)

GEMMA4 = Format(
    name="gemma4",
    call=NotationCall(before_name="call:", quote='<|"|>'),
    signs=("<|tool_call>",),
    reasonings=(Reasoning("<|channel>thought\n", "<channel|>"),),
    call_begin="<|tool_call>",
    call_end="<tool_call|>",
    tokens=("<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>", "<channel|>"),
    control=True,
)

FUNCTION_GEMMA = Format(
    name="functiongemma",
    call=NotationCall(before_name="call:", quote="<escape>"),
    signs=("<start_function_call>",),
    call_begin="<start_function_call>",
    call_end="<end_function_call>",
    tokens=("<start_function_call>", "<end_function_call>", "<escape>"),
)

# DeepSeek's marks are written with a wide bar, and a low block instead of spaces.
_CALLS_BEGIN, _CALLS_END, _CALL_BEGIN, _CALL_END, _SEPARATOR = (
    f"<\uff5ctool\u2581{name}\uff5c>"
    for name in ("calls\u2581begin", "calls\u2581end", "call\u2581begin", "call\u2581end", "sep")
)
_DEEPSEEK_TOKENS = (_CALLS_BEGIN, _CALLS_END, _CALL_BEGIN, _CALL_END, _SEPARATOR, "<think>", "</think>")

DEEPSEEK_V3 = Format(
    name="deepseek-v3",
    call=NamedCall(
        before_name=f"function{_SEPARATOR}", before_arguments="\n```json\n", after_arguments="\n```"
    ),
    signs=(_CALLS_BEGIN, "```json"),
    reasonings=(THINK,),
    section_begin=_CALLS_BEGIN,
    section_end=_CALLS_END,
    call_begin=_CALL_BEGIN,
    call_end=_CALL_END,
    between_calls="\n",
    tokens=_DEEPSEEK_TOKENS,
)

DEEPSEEK_V31 = Format(
    name="deepseek-v3.1",
    call=NamedCall(before_arguments=_SEPARATOR),
    signs=(_CALLS_BEGIN,),
    reasonings=(THINK,),
    section_begin=_CALLS_BEGIN,
    section_end=_CALLS_END,
    call_begin=_CALL_BEGIN,
    call_end=_CALL_END,
    tokens=_DEEPSEEK_TOKENS,
)


def _dsml(name: str, section: str, space: str = "") -> Format:
    mark = f"\uff5cDSML\uff5c{space}"
    return Format(
        name=name,
        call=TaggedCall(
            before_name=f"<{mark}invoke",
            name_attribute="name",
            after_name=">",
            before_key=f"<{mark}parameter",
            key_attribute="name",
            type_attribute="string",
            after_key=">",
            after_value=f"</{mark}parameter>",
            after_parameters=f"</{mark}invoke>",
            between="\n",
        ),
        signs=(mark, section),  # templates put the marks together from parts
        reasonings=(THINK,),
        section_begin=f"<{mark}{section}>",
        section_end=f"</{mark}{section}>",
        before_calls="\n\n",
        between_calls="\n",
        tokens=("\uff5cDSML\uff5c", "<think>", "</think>"),
    )


DEEPSEEK_V32 = _dsml("deepseek-v3.2", "function_calls")
DEEPSEEK_V4 = _dsml("deepseek-v4", "tool_calls")
DEEPSEEK_V41 = _dsml("deepseek-v4.1", "calls", space=" ")

HARMONY = Format(
    name="harmony",
    call=ChannelCall(
        start="<|start|>",
        channel="<|channel|>",
        constrain="<|constrain|>",
        message="<|message|>",
        ends=("<|call|>", "<|end|>", "<|return|>"),
        reasoning_channel="analysis",
    ),
    signs=("<|channel|>", "<|message|>"),
    reasonings=(Reasoning("<|channel|>analysis<|message|>", "<|end|>"),),
    tokens=(
        *("<|start|>", "<|end|>", "<|message|>", "<|channel|>"),
        *("<|constrain|>", "<|call|>", "<|return|>"),
    ),
    control=True,
)

KIMI_K2 = Format(
    name="kimi-k2",
    call=NamedCall(before_arguments="<|tool_call_argument_begin|>", name_in_id=True),
    signs=("<|tool_calls_section_begin|>",),
    reasonings=(THINK,),
    section_begin="<|tool_calls_section_begin|>",
    section_end="<|tool_calls_section_end|>",
    call_begin="<|tool_call_begin|>",
    call_end="<|tool_call_end|>",
    tokens=(
        *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>"),
        *("<|tool_call_end|>", "<|tool_call_argument_begin|>", "<think>", "</think>"),
    ),
)

KIMI_K3 = Format(
    name="kimi-k3",
    call=TaggedCall(
        before_name="<|open|>call",
        name_attribute="tool",
        after_name="<|sep|>",
        before_key="<|open|>argument",
        key_attribute="key",
        type_attribute="type",
        after_key="<|sep|>",
        after_value="<|close|>argument<|sep|>",
        after_parameters="<|close|>call<|sep|>",
    ),
    signs=("<|open|>", "<|close|>", "<|sep|>"),
    reasonings=(Reasoning("<|open|>think<|sep|>", "<|close|>think<|sep|>"),),
    section_begin="<|open|>tools<|sep|>",
    section_end="<|close|>tools<|sep|>",
    silent=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
    tokens=("<|open|>", "<|close|>", "<|sep|>"),
    control=True,
)

GLM = Format(
    name="glm",
    call=TaggedCall(
        before_key="<arg_key>",
        after_key="</arg_key>",
        before_value="<arg_value>",
        after_value="</arg_value>",
        between="\n",
    ),
    signs=("<arg_key>",),
    reasonings=(THINK,),
    call_begin="<tool_call>",
    call_end="</tool_call>",
    before_calls="\n",
    between_calls="\n",
    tokens=(
        *("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        *("<think>", "</think>"),
    ),
)

# For models whose templates know nothing of tools: the way that most have read of.
GENERIC = Format(
    name="json",
    call=JsonCall(),
    signs=(),
    call_begin="<tool_call>",
    call_end="</tool_call>",
    before_calls="\n",
    between_calls="\n",
    bare=True,
)

FORMATS = (
    *(HARMONY, KIMI_K2, KIMI_K3, DEEPSEEK_V41, DEEPSEEK_V32, DEEPSEEK_V4, DEEPSEEK_V3, DEEPSEEK_V31),
    *(GEMMA4, FUNCTION_GEMMA, GLM, QWEN_XML, MISTRAL_V11, MISTRAL_V3, HERMES, LLAMA4, LLAMA3, GENERIC),
)
BY_NAME = {each.name: each for each in FORMATS}
