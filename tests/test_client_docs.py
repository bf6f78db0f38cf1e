"""The chapter on client libraries shows the lines that their tests run."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = sorted((ROOT / "tests" / "clients").glob("test_*.py"))
PLACES = {"SERVER_URL": "http://localhost:8000", "BASE_URL": "http://localhost:8000/v1", "API_KEY": "unused"}


def shown() -> list[str]:
    """The blocks of code in the chapter, with names in place of the address and the key."""
    text = (ROOT / "docs" / "clients.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [plain(with_names(code, '"' if language == "python" else "")) for language, code in blocks]


def with_names(code: str, quote: str) -> str:
    for name in ("BASE_URL", "SERVER_URL", "API_KEY"):
        code = code.replace(f"{quote}{PLACES[name]}{quote}", name)
    return code


def marked(file: Path) -> list[str]:
    """The marked regions of a library's tests."""
    regions = re.findall(
        r"^ *# docs: begin\n(.*?)^ *# docs: end$", file.read_text(), re.MULTILINE | re.DOTALL
    )
    return [plain(textwrap.dedent(region)) for region in regions]


def plain(code: str) -> str:
    """``code`` without its layout, if it is Python: the formatter fills lines by their length."""
    try:
        return ast.unparse(ast.parse(code))
    except SyntaxError:
        return code


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_the_chapter_shows_what_is_tested(file: Path) -> None:
    regions = marked(file)
    assert regions
    for region in regions:
        assert region in shown(), f"docs/clients.md has other lines than {file.name}"


def test_everything_that_the_chapter_shows_is_tested() -> None:
    assert sorted(shown()) == sorted(region for file in TESTS for region in marked(file))
