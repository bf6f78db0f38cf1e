"""The ``.env`` file: its text, whatever an editor made of it, and the variables in it."""

from __future__ import annotations

import codecs
import io
from dataclasses import dataclass, field
from pathlib import Path

from dotenv.main import resolve_variables
from dotenv.parser import Original, parse_stream

# Windows' Notepad and PowerShell begin a file with one of these.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class EnvFileError(Exception):
    """The file cannot be read; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class EnvFile:
    """The variables of a file, and what in it could not be understood, for people."""

    values: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def read_env_file(path: Path) -> EnvFile:
    """Nothing if there is no such file. Raises `EnvFileError`."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return EnvFile()
    except IsADirectoryError:
        made_by = "Docker makes one where the file that it is to mount is missing"
        return EnvFile(problems=(f"{path} is a folder, not a file, and was not read ({made_by})",))
    except OSError as error:
        raise EnvFileError(f"{path} cannot be read: {error.strerror or error}") from None
    return _parse(path, decode(data, str(path)))


def decode(data: bytes, name: str) -> str:
    """The text of a file ``name``, in UTF-8, or in UTF-16 with a byte order mark. Raises `EnvFileError`."""
    mark, encoding = next((each for each in _MARKS if data.startswith(each[0])), (b"", "utf-8"))
    data = data.removeprefix(mark)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise EnvFileError(f"{name} is not written in UTF-8 (line {line}): save it as UTF-8") from None
    if "\0" in text:
        raise EnvFileError(f"{name} holds NUL bytes, as UTF-16 without a mark does: save it as UTF-8")
    return text


def _parse(path: Path, text: str) -> EnvFile:
    bindings = list(parse_stream(io.StringIO(text, newline=None)))
    problems = tuple(
        f"{path}, line {_line(each.original)}, is no NAME=value, and was left out"
        for each in bindings
        if each.error or (each.key is not None and each.value is None)
    )
    given = [(each.key, each.value) for each in bindings if each.key is not None and each.value is not None]
    values = resolve_variables(given, override=False)
    return EnvFile({name: value or "" for name, value in values.items()}, problems)


def _line(original: Original) -> int:
    """The line of a statement, which the parser counts from the blank lines before it."""
    blank = len(original.string) - len(original.string.lstrip())
    return original.line + original.string.count("\n", 0, blank)
