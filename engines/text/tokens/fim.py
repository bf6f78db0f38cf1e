"""Filling in the middle (FIM): the tokens that mark the text in front of a gap and the text behind it."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from engines.base import SourceFile

Part = str | int | Sequence[int]
"""A text in which no special token counts, a token, or tokens."""


@dataclass(frozen=True, slots=True)
class FimTokens:
    """The tokens of one vocabulary for filling in the middle.

    A prompt is prefix and suffix behind their marks, then ``middle``, if there is one; with ``suffix_first``
    the suffix comes first. ``repository`` and ``file`` begin the names of what else there is. The answer ends
    with any of ``ends`` too.
    """

    prefix: int
    suffix: int
    middle: int | None
    suffix_first: bool = False
    repository: int | None = None
    file: int | None = None
    ends: tuple[int, ...] = ()

    def parts(self, prefix: str | Sequence[int], suffix: str, files: Sequence[SourceFile] = ()) -> list[Part]:
        """The prompt for what is between ``prefix`` and ``suffix``, where ``files`` are beside them."""
        before: list[Part] = [self.prefix, prefix]
        after: list[Part] = [self.suffix, suffix]
        gap = [*after, *before] if self.suffix_first else [*before, *after]
        return [*self._files(files), *gap, *([] if self.middle is None else [self.middle])]

    def _files(self, files: Sequence[SourceFile]) -> list[Part]:
        if not files:
            return []
        if self.file is None:
            return ["".join(f"{file.text}\n" for file in files)]
        parts: list[Part] = [] if self.repository is None else [self.repository, "repository\n"]
        for file in files:
            parts += [self.file, f"{file.name}\n{file.text}\n"]
        return [*parts, self.file, "file\n"]


@dataclass(frozen=True, slots=True)
class _Names:
    prefix: str
    suffix: str
    middle: str | None
    suffix_first: bool = False


# Each model family's names; those of two are never mixed.
_KNOWN = (
    _Names("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma
    _Names("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    _Names("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    _Names("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek  # noqa: RUF001
    _Names("▁<PRE>", "▁<SUF>", "▁<MID>"),  # CodeLlama
    _Names("<PRE>", "<SUF>", "<MID>"),
    _Names("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM
    _Names("<|prefix|>", "<|suffix|>", "<|middle|>"),  # Falcon
    _Names("[PREFIX]", "[SUFFIX]", None, suffix_first=True),  # Codestral
)
NAMES = frozenset(
    name for each in _KNOWN for name in (each.prefix, each.suffix, each.middle) if name is not None
)
"""The names by which such tokens are known."""

_REPOSITORIES = ("<|repo_name|>", "<repo_name>")
_FILES = ("<|file_sep|>", "<file_sep>")
# What a model writes behind what it filled in, besides its usual end tokens.
_ENDS = (
    *_REPOSITORIES,
    *_FILES,
    "<|fim_pad|>",
    "<fim_pad>",
    "<|file_separator|>",
    "<|endoftext|>",
    "▁<EOT>",
    "<EOT>",
    "[MIDDLE]",
)


def has_fim(names: Container[str]) -> bool:
    """Whether a vocabulary that has tokens of these ``names`` can fill in the middle."""
    return find_fim(lambda name: 0 if name in names else None) is not None


def find_fim(find: Callable[[str], int | None]) -> FimTokens | None:
    """The tokens of the vocabulary in which ``find`` finds a token by its name; None if it has none."""
    for names in _KNOWN:
        prefix, suffix = find(names.prefix), find(names.suffix)
        middle = None if names.middle is None else find(names.middle)
        if prefix is None or suffix is None or (middle is None and names.middle is not None):
            continue
        return made(prefix, suffix, middle, find, suffix_first=names.suffix_first)
    return None


def made(
    prefix: int,
    suffix: int,
    middle: int | None,
    find: Callable[[str], int | None],
    *,
    suffix_first: bool = False,
) -> FimTokens:
    """The tokens around the three that are known, as ``find`` finds them by name."""
    marks = [token for token in (prefix, suffix, middle) if token is not None]
    return FimTokens(
        prefix,
        suffix,
        middle,
        suffix_first,
        repository=next(iter(_found(_REPOSITORIES, find)), None),
        file=next(iter(_found(_FILES, find)), None),
        ends=tuple(sorted({*marks, *_found(_ENDS, find)})),
    )


def _found(names: Sequence[str], find: Callable[[str], int | None]) -> list[int]:
    return [token for name in names if (token := find(name)) is not None]
