"""Variables: what the environment and ``.env`` say of settings, as their writers meant it.

Docker's ``--env-file`` keeps quotes as a part of values, editors leave blanks and carriage returns, and a
name with a slip in it says nothing at all. What is mended or left out is told.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from app.env_file import EnvFile

ENVIRONMENT = "environment"
ENV_FILE = ".env"

# Variables of the hubs' libraries, which count from `.env` too.
_HUBS = ("HF_", "HUGGING_FACE_HUB_", "MODELSCOPE_")
_PREFIX = "ENGINEHOUSE_"
# Kubernetes tells of a service of that name in ENGINEHOUSE_PORT.
_SERVICE = "tcp://"
# How close a name has to be to one of ours. A shell's environment has many that are others' affair.
_CLOSE_IN_FILE = 0.8
_CLOSE_IN_ENVIRONMENT = 0.88
_SHORTEST_IN_ENVIRONMENT = 8
_UNSET = re.compile(r"\$\{?([A-Za-z_]\w*)")


@dataclass(frozen=True, slots=True)
class Variable:
    """A setting's variable; ``origin`` is where it was found."""

    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Variables:
    """The variables of settings by the settings' names, those of hubs, and notes for people."""

    settings: Mapping[str, Variable] = field(default_factory=dict)
    hubs: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def collect(names: Collection[str], environment: Mapping[str, str], file: EnvFile) -> Variables:
    """The variables of the settings ``names``; those of the environment come before those of ``file``."""
    found: dict[str, Variable] = {}
    notes = [*file.problems]
    for origin, values in ((ENV_FILE, file.values), (ENVIRONMENT, environment)):
        # The proper spelling is last, so that it counts.
        for name, value in sorted(values.items(), key=lambda each: each[0].isupper()):
            if name.lower() in names:
                bare = unquoted(value)
                if bare != value.strip():
                    notes.append(f"{name} ({origin}) has quotes around its value: they do not count")
                found[name.lower()] = Variable(bare, origin)
        notes += _misspelt(values, origin, names)
    hubs = {name: value for name, value in file.values.items() if name.startswith(_HUBS)}
    return Variables(found, hubs, tuple(notes))


def unquoted(value: str) -> str:
    """``value`` without blanks around it, nor quotes."""
    bare = value.strip()
    quoted = len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'"
    return bare[1:-1].strip() if quoted else bare


def expanded(value: str) -> str:
    """A path with what ``~`` and variables stand for. Raises `ValueError` for a variable that is not set."""
    path = os.path.expandvars(os.path.expanduser(value))
    if unset := _UNSET.search(path):
        raise ValueError(f"the variable {unset[1]} in this path is not set")
    return path


def _misspelt(given: Mapping[str, str], origin: str, names: Collection[str]) -> Iterator[str]:
    """A note for each name that looks like one of ours, but is none."""
    ours = {name.upper() for name in names}
    first_words = {name.partition("_")[0] for name in ours}
    for name in sorted(given):
        if name.lower() in names or name.startswith(_HUBS) or given[name].startswith(_SERVICE):
            continue
        bare = name.upper().removeprefix(_PREFIX)
        is_in_file, has_prefix = origin == ENV_FILE, bare != name.upper()
        cutoff = _CLOSE_IN_FILE if is_in_file or has_prefix else _CLOSE_IN_ENVIRONMENT
        may_be_ours = is_in_file or has_prefix or ("_" in name and len(name) >= _SHORTEST_IN_ENVIRONMENT)
        close = get_close_matches(bare, ours, n=1, cutoff=cutoff) if may_be_ours else []
        if close or (is_in_file and bare.partition("_")[0] in first_words):
            yield f"{name} ({origin}) is no setting" + (f": did you mean {close[0]}?" if close else "")
