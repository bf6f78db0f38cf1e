"""The declared format of an answer: how a family of models writes reasoning and tool calls.

Data only: a reader (`engines.text.answers.reader`) takes an answer apart by it, and a grammar can be made of
it. A mark is text as the model writes it; parts of it may be single tokens of the vocabulary
(`Format.tokens`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The marks around reasoning. Newlines next to them belong to them."""

    begin: str
    end: str


@dataclass(frozen=True, slots=True)
class JsonCall:
    """A call that is ``{"name": …, "arguments": {…}}``: the first key of each kind is the usual one.

    ``listed``: calls stand in one array.
    """

    name_keys: tuple[str, ...] = ("name",)
    argument_keys: tuple[str, ...] = ("arguments", "parameters")
    listed: bool = False


@dataclass(frozen=True, slots=True)
class NamedCall:
    """A call that is a function's name, then its arguments in JSON.

    ``before_id`` stands between the name and the call's id, which is optional. With ``name_in_id`` the id is
    ``functions.name:number`` and there is no other name. ``after_arguments`` is optional when reading.
    """

    before_arguments: str
    before_name: str = ""
    before_id: str = ""
    after_arguments: str = ""
    name_in_id: bool = False


@dataclass(frozen=True, slots=True)
class TaggedCall:
    """A call whose parameters stand between tags, each value as raw text, or as JSON if it is no string.

    A call is ``before_name name after_name parameters after_parameters``, a parameter ``before_key key
    after_key before_value value after_value``. Where an attribute is named, name or key are written as it
    (``before_key key="…" type="…"after_key``); ``type_attribute`` is the value's type (or, as
    ``string="true"``, says whether it is a string). With ``lines`` a value stands between newlines that are
    not part of it. ``between`` stands between two tags, and does not matter when reading.
    """

    before_key: str
    after_key: str
    after_value: str
    before_name: str = ""
    after_name: str = ""
    after_parameters: str = ""
    before_value: str = ""
    name_attribute: str = ""
    key_attribute: str = ""
    type_attribute: str = ""
    lines: bool = False
    between: str = ""


@dataclass(frozen=True, slots=True)
class NotationCall:
    """A call that is ``call:name{key:value,…}``, strings between ``quote`` and all else as in JSON."""

    before_name: str
    quote: str


@dataclass(frozen=True, slots=True)
class PythonCall:
    """Calls that are a Python list of them: ``[name(key='value'), …]``."""


@dataclass(frozen=True, slots=True)
class ChannelCall:
    """A message to a function: ``to=functions.name`` in the header of a message, arguments in its body.

    Answers of this kind are messages, each ``start role channel message body`` and one of ``ends``; the
    channel says what a message is, and ``constrain`` what its body is written in.
    """

    start: str
    channel: str
    constrain: str
    message: str
    ends: tuple[str, ...]
    reasoning_channel: str
    recipient: str = "to=functions."


@dataclass(frozen=True, slots=True)
class ArgumentsCall:
    """A call that is nothing but the arguments, in JSON, of the function ``name``."""

    name: str


CallShape = ArgumentsCall | JsonCall | NamedCall | TaggedCall | NotationCall | PythonCall | ChannelCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One family's way to write an answer.

    A call stands between ``call_begin`` and ``call_end``, all calls of an answer between ``section_begin``
    and ``section_end``; each may be empty. ``before_calls`` stands between content and the first of these
    marks, ``between_calls`` between two calls. ``also`` are other shapes that models of the family are known
    to write between the same marks. ``bare``: a call may come without the mark that begins it.

    ``silent`` are marks that mean nothing to a client, ``tokens`` the texts (marks, or parts of some) that
    are single tokens in the vocabularies of the family. ``control``: they are control tokens, the same text
    written out in other tokens is just text. ``signs`` are found in the chat templates that teach the
    format, all of them in one.
    """

    name: str
    call: CallShape
    signs: tuple[str, ...]
    reasonings: tuple[Reasoning, ...] = ()
    call_begin: str = ""
    call_end: str = ""
    section_begin: str = ""
    section_end: str = ""
    before_calls: str = ""
    between_calls: str = ""
    also: tuple[CallShape, ...] = ()
    bare: bool = False
    silent: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    control: bool = False
