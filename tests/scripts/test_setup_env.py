"""The set-up script: what it parses, checks and shows. Nothing is installed here."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from scripts import setup_env
from scripts.setup_env import Progress, Reporter, SetupError, find_compiler, parse_progress, run_step

LOG_LINE = "  [87/193] /usr/bin/c++ -DGGML_BUILD -o ggml/src/ops.cpp.o -c ops.cpp\n"


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        (LOG_LINE, Progress(87, 193)),
        ("[193/193] Linking CXX shared library libllama.so\n", Progress(193, 193)),
        ("[ 12%] Building CXX object src/llama.cpp.o\n", Progress(12, None)),
        ("[100%] Built target llama\n", Progress(100, None)),
        ("  -- Found OpenMP: TRUE\n", None),
        ("see [1] and [2/3]\n", None),
        ("[5/0] nonsense\n", None),
        ("[9/3] nonsense\n", None),
        ("", None),
    ],
)
def test_progress_is_read_from_build_output(line: str, progress: Progress | None) -> None:
    assert parse_progress(line) == progress


@pytest.mark.parametrize(
    ("progress", "text"), [(Progress(87, 193), "45 % (87/193)"), (Progress(12, None), "12 %")]
)
def test_progress_as_text(progress: Progress, text: str) -> None:
    assert str(progress) == text


@pytest.mark.parametrize("version", [(3, 11), (3, 11, 0), (3, 14, 1), (4, 0)])
def test_new_python_is_accepted(version: tuple[int, ...]) -> None:
    setup_env.require_python(version)


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 9), (2, 7)])
def test_old_python_is_refused_with_advice(version: tuple[int, ...]) -> None:
    with pytest.raises(SetupError, match=r"needs Python 3\.11 or newer.*is \d\.\d+\.\n.*PYTHON="):
        setup_env.require_python(version)


@pytest.mark.parametrize(
    ("environ", "present", "found"),
    [
        ({}, {"c++": "/usr/bin/c++", "g++": "/usr/bin/g++"}, "/usr/bin/c++"),
        ({}, {"clang++": "/usr/bin/clang++"}, "/usr/bin/clang++"),
        ({"CXX": "g++-14 -m64"}, {"g++-14": "/opt/g++-14", "c++": "/usr/bin/c++"}, "/opt/g++-14"),
        ({"CXX": "gone"}, {"g++": "/usr/bin/g++"}, "/usr/bin/g++"),
        ({}, {"gcc": "/usr/bin/gcc"}, None),
        ({}, {}, None),
    ],
)
def test_compiler(environ: dict[str, str], present: dict[str, str], found: str | None) -> None:
    assert find_compiler(environ, present.get) == found


def test_without_compiler_setup_stops_before_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_env, "is_installed", lambda python, name: False)
    monkeypatch.setattr(setup_env, "find_compiler", lambda environ, which: None)
    monkeypatch.setattr(setup_env, "run_step", lambda *args: pytest.fail("nothing may be installed"))
    with pytest.raises(SetupError) as caught:
        setup_env.install_llama(Path("python"), tmp_path, tmp_path / "log")
    for hint in ("build-essential", "xcode-select", "dnf", "Visual Studio", "prebuilt wheel", "GGML_CUDA"):
        assert hint in str(caught.value)


def test_an_installed_llama_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(setup_env, "is_installed", lambda python, name: True)
    monkeypatch.setattr(setup_env, "find_compiler", lambda environ, which: None)
    monkeypatch.setattr(setup_env, "run_step", lambda title, command, log: commands.append(command))
    setup_env.install_llama(Path("python"), tmp_path, tmp_path / "log")
    assert commands[0][-1].startswith("llama-cpp-python>=")


def test_is_installed_asks_the_interpreter_it_is_given() -> None:
    assert setup_env.is_installed(Path(sys.executable), "pytest")
    assert not setup_env.is_installed(Path(sys.executable), "no-such-distribution-at-all")


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_terminal_a_line_comes_every_interval() -> None:
    out, clock = io.StringIO(), FakeClock()
    reporter = Reporter("installing llama", out, tty=False, clock=clock)
    for second in range(1, 152):
        clock.now = 100.0 + second
        if second == 20:
            reporter.feed(LOG_LINE)
        reporter.tick()
    reporter.finish("done")
    lines = out.getvalue().splitlines()
    assert lines[0] == "installing llama, 0:15 elapsed"
    assert lines[1] == "compiling llama.cpp 45 % (87/193), 0:30 elapsed"
    assert lines[9] == "compiling llama.cpp 45 % (87/193), 2:30 elapsed"
    assert lines[10:] == ["installing llama: done (2:31)"]


def test_on_a_terminal_one_line_rewrites_itself() -> None:
    out, clock = io.StringIO(), FakeClock()
    reporter = Reporter("installing", out, tty=True, clock=clock)
    reporter.tick()
    reporter.feed(LOG_LINE)
    reporter.tick()
    assert "\n" not in out.getvalue()
    assert out.getvalue().split("\r\x1b[K")[1:] == [
        "installing, 0:00 elapsed",
        "compiling llama.cpp 45 % (87/193), 0:00 elapsed",
    ]
    reporter.finish("done")
    assert out.getvalue().endswith("\r\x1b[Kinstalling: done (0:00)\n")


def test_a_step_logs_what_the_command_prints(tmp_path: Path) -> None:
    log, out = tmp_path / "setup.log", io.StringIO()
    run_step("greeting", [sys.executable, "-c", "print('hello')"], log, out)
    run_step("greeting", [sys.executable, "-c", "import sys; print('again', file=sys.stderr)"], log, out)
    text = log.read_text()
    assert "\nhello\n" in text
    assert text.endswith("\nagain\n")
    assert out.getvalue() == "greeting: done (0:00)\n" * 2


def test_a_failed_step_shows_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "setup.log"
    code = "import sys\nfor i in range(100): print(f'line {i}.')\nsys.exit(3)"
    with pytest.raises(SetupError) as caught:
        run_step("building", [sys.executable, "-c", code], log, io.StringIO())
    message = str(caught.value)
    assert message.startswith("line 75.\n")
    assert "line 99.\n" in message
    assert f"{log}: building failed with status 3" in message


def test_main_reports_failure_and_exits_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(venv: Path, extras: list[str]) -> None:
        raise SetupError(f"no luck with {extras}")

    monkeypatch.setattr(setup_env, "setup", fail)
    assert setup_env.main(["--venv", str(tmp_path), "--extras", "llama,dev"]) == 1
    assert capsys.readouterr().err == "no luck with ['llama', 'dev']\n"
