"""The matrix of client libraries: its environments are complete, and it tells what it left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts import client_matrix
from scripts.clients import environments as clients
from scripts.clients.environments import TESTS, ClientEnvironment, ClientLibrary, environments
from scripts.setup.errors import StepFailed
from support.environments import FakeEnvironment

LIBRARIES = [(each, library) for each in environments() for library in each.libraries]


@pytest.mark.parametrize(
    ("environment", "library"), LIBRARIES, ids=lambda each: each.name if hasattr(each, "name") else ""
)
def test_a_library_has_bounds_a_locked_version_and_tests(
    environment: ClientEnvironment, library: ClientLibrary
) -> None:
    requirement = Requirement(library.requirement)
    assert {each.operator for each in requirement.specifier} == {">=", "<"}
    locked = [Requirement(line) for line in environment.lock.read_text().splitlines() if "==" in line]
    [version] = [str(each.specifier)[2:] for each in locked if each.name == library.name]
    assert version in requirement.specifier, "make lock-clients"
    assert library.tests.exists()


def test_every_file_of_tests_is_run() -> None:
    assert {library.tests for _, library in LIBRARIES} == set(TESTS.glob("test_*.py"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ClientEnvironment:
    """One that is not there yet."""
    environment = ClientEnvironment("openai2")
    monkeypatch.setattr(environment, "venv", FakeEnvironment(tmp_path / "venv"))
    return environment


def test_what_no_registry_has_is_left_out_with_the_reason(
    environment: ClientEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def uv(title: str, arguments: Sequence[str]) -> None:
        asked.append(title)
        if title in {"installing openai2", "installing instructor alone"}:
            raise StepFailed("It failed", "No solution found:\n  there is no version of instructor")

    monkeypatch.setattr(clients, "uv", uv)
    assert environment.install() == {"instructor": "No solution found: there is no version of instructor"}
    asked.clear()
    assert "instructor" in environment.install(), "tried again"
    assert asked[0] == "installing openai2"


def test_what_is_installed_is_not_installed_again(
    environment: ClientEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(clients, "uv", lambda title, arguments: asked.append(title))
    assert environment.install() == environment.install() == {}
    assert asked == ["installing openai2"]


def test_what_is_borrowed_is_all_of_a_package_that_is_imported() -> None:
    borrowed = clients.entries("pytest")
    assert {"pytest", "_pytest", "py.py"} <= {path.name for path in borrowed}
    assert all(path.exists() for path in borrowed)
    assert clients.entries("there-is-no-such-package") == set()


def test_the_report_is_counted_by_file(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="test_llm" name="a"/>'
        '<testcase classname="test_llm.TestSimonsLLM" name="b"><failure/></testcase>'
        '<testcase classname="" name="test_dspy"><skipped/></testcase></testsuite></testsuites>'
    )
    rows = {
        name: client_matrix.Row(ClientLibrary(f"{name}>=1"), "current", "1.0")
        for name in ("test_llm", "test_dspy")
    }
    client_matrix.count(report, rows)
    assert rows["test_llm"].counts == Counter(passed=1, failed=1)
    assert rows["test_dspy"].counts == Counter(skipped=1)
    assert str(rows["test_llm"]).endswith("1 passed, 1 failed, 0 skipped")
