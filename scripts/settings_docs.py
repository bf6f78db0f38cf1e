"""Write ``.env.example`` and the README's settings table from the settings themselves.

``python -m scripts.settings_docs`` updates both files, ``--check`` only says whether they are up to date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic.fields import FieldInfo

from app.setting_errors import choices
from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent

_HEADER = """\
# Copy this file to .env and change what you need. Variables of the environment come before it.
# Written by `make settings-docs` from app/settings.py.
"""


def default_text(field: FieldInfo) -> str:
    """A field's default as one writes it in an environment variable."""
    value = field.default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    return str(value)


def meaning(field: FieldInfo) -> str:
    """What the field is for, and its choices if it has several that the description does not name."""
    text = field.description or ""
    shown = [f"`{choice}`" for choice in choices(field)]
    if len(shown) > 1 and not all(choice in text for choice in shown):
        text += f" One of {', '.join(shown)}."
    return text


def env_example() -> str:
    """The whole of ``.env.example``."""
    entries = [
        f"# {meaning(field)}\n{name.upper()}={default_text(field)}\n"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join([_HEADER, *entries])


def readme_table() -> str:
    """The table between the README's markers."""
    rows = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = default_text(field)
        shown = f"`{default}`" if default else ""
        rows.append(f"| `{name.upper()}` | {shown} | {meaning(field).replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def with_table(text: str, name: str, table: str) -> str:
    """``text`` with ``table`` between the markers called ``name``. Raises ValueError without markers."""
    begin = f"<!-- {name} -->"
    start = text.index(begin) + len(begin)
    end = text.index(f"<!-- /{name} -->", start)
    return f"{text[:start]}\n{table}\n{text[end:]}"


def outdated(root: Path = ROOT) -> dict[Path, str]:
    """The files that differ from the settings, and what should be in them."""
    readme, example = root / "README.md", root / ".env.example"
    text = with_table(readme.read_text(encoding="utf-8"), "settings", readme_table())
    wanted = {readme: text, example: env_example()}
    return {
        path: text
        for path, text in wanted.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write .env.example and the README's settings table.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if anything would change"
    )
    check = parser.parse_args(argv).check
    changes = outdated()
    for path, text in changes.items():
        if not check:
            path.write_text(text, encoding="utf-8")
        print(f"{path.name} {'is outdated: make settings-docs' if check else 'updated'}")
    return 1 if check and changes else 0


if __name__ == "__main__":
    sys.exit(main())
