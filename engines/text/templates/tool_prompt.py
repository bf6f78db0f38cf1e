"""Tools in words: what a model is told of them whose chat template shows none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]
Tool = Mapping[str, Any]
WriteCall = Callable[[str, str], str]
"""A call as the model is to write it, from the function's name and its arguments, both as they go into the
text."""


def hermes_call(name: str, arguments: str) -> str:
    """A call in the form that most models without one of their own have seen."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def instruction(tools: Iterable[Tool], write: WriteCall = hermes_call) -> str:
    """What the model is told: the functions, and how to call them."""
    functions = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    example = write("<function-name>", "<arguments-as-a-JSON-object>")
    return (
        "You may call functions to answer the user. They are described here, one on each line:\n"
        f"<tools>\n{functions}\n</tools>\n"
        f"To call a function, answer with its name and arguments in exactly this form, and nothing else:\n"
        f"{example}\nThe result comes in the next message."
    )


def with_instruction(messages: Sequence[Message], text: str, *, in_system: bool) -> list[Message]:
    """``messages`` with ``text`` at the end of the system's, or, for templates without one, in front of the
    first user's."""
    if not in_system:
        for index, message in enumerate(messages):
            if message["role"] == "user":
                told = {**message, "content": f"{text}\n\n{message['content']}"}
                return [*messages[:index], told, *messages[index + 1 :]]
        return [{"role": "user", "content": text}, *messages]
    if messages and messages[0]["role"] == "system":
        told = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}".lstrip()}
        return [told, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def calls_text(message: Message, write: WriteCall = hermes_call) -> str:
    """A message's calls as text, behind what else it says."""
    calls = [write(each["function"]["name"], each["function"]["arguments"]) for each in message["tool_calls"]]
    return "\n".join([*([message["content"]] if message["content"] else []), *calls])


def result_text(message: Message) -> str:
    """A call's result as text."""
    name = f' name="{message["name"]}"' if message.get("name") else ""
    return f"<tool_response{name}>\n{message['content']}\n</tool_response>"
