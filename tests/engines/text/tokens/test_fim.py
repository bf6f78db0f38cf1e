from __future__ import annotations

import pytest

from engines.base import SourceFile
from engines.text.tokens.fim import find_fim

QWEN = {"<|fim_prefix|>": 1, "<|fim_suffix|>": 2, "<|fim_middle|>": 3, "<|fim_pad|>": 4, "<|endoftext|>": 5}
CODESTRAL = {"[PREFIX]": 1, "[SUFFIX]": 2, "[MIDDLE]": 3}
CODE_LLAMA = {"▁<PRE>": 1, "▁<SUF>": 2, "▁<MID>": 3, "▁<EOT>": 4}
DEEPSEEK = {"<｜fim▁begin｜>": 1, "<｜fim▁hole｜>": 2, "<｜fim▁end｜>": 3}  # noqa: RUF001


@pytest.mark.parametrize(
    ("names", "parts", "ends"),
    [
        (QWEN, [1, "before", 2, "after", 3], (1, 2, 3, 4, 5)),
        (CODE_LLAMA, [1, "before", 2, "after", 3], (1, 2, 3, 4)),
        (DEEPSEEK, [1, "before", 2, "after", 3], (1, 2, 3)),
        (CODESTRAL, [2, "after", 1, "before"], (1, 2, 3)),
    ],
)
def test_each_family_has_its_own_order(names: dict[str, int], parts: list[object], ends: object) -> None:
    fim = find_fim(names.get)
    assert fim is not None
    assert fim.parts("before", "after") == parts
    assert fim.ends == ends


@pytest.mark.parametrize("names", [{}, {"<|fim_prefix|>": 1, "<|fim_suffix|>": 2, "<fim_middle>": 3}])
def test_the_names_of_two_families_are_not_mixed(names: dict[str, int]) -> None:
    assert find_fim(names.get) is None


def test_other_files_come_first() -> None:
    files = [SourceFile("a.py", "A = 1")]
    plain, qwen = find_fim(DEEPSEEK.get), find_fim((QWEN | {"<|repo_name|>": 6, "<|file_sep|>": 7}).get)
    assert plain is not None
    assert plain.parts("b", "c", files) == ["A = 1\n", 1, "b", 2, "c", 3]
    assert qwen is not None
    assert qwen.parts("b", "c", files) == [
        6, "repository\n", 7, "a.py\nA = 1\n", 7, "file\n", 1, "b", 2, "c", 3,
    ]  # fmt: skip
