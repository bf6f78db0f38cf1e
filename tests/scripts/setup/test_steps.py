"""Steps: what is read from their output, shown, logged, and said when they fail."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from scripts.setup.errors import StepFailed
from scripts.setup.steps import Reporter, parse_activity, run_step

LOG_LINE = "  [87/193] /usr/bin/c++ -DGGML_BUILD -o ggml/src/ops.cpp.o -c ops.cpp\n"
TORCH = "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl"


@pytest.mark.parametrize(
    ("line", "activity"),
    [
        (LOG_LINE, "compiling 45 % (87/193)"),
        ("[193/193] Linking CXX shared library libllama.so\n", "compiling 100 % (193/193)"),
        ("[ 12%] Building CXX object src/llama.cpp.o\n", "compiling 12 %"),
        ("[100%] Built target llama\n", "compiling 100 %"),
        ("Collecting torch==2.13.0\n", "looking for torch"),
        (f"  Downloading {TORCH} (526.6 MB)\n", f"fetching {TORCH} (526.6 MB)"),
        (f"Processing /srv/wheels/{TORCH} (from torch==2.13.0)\n", f"fetching {TORCH}"),
        (f"  Using cached {TORCH}.metadata (30 kB)\n", f"fetching {TORCH} (30 kB)"),
        (f"Downloading {'x' * 200}.whl (1.0 MB)\n", f"fetching {'x' * 60} (1.0 MB)"),
        ("Installing collected packages: a, b, c\n", "unpacking 3 packages"),
        ("  -- Found OpenMP: TRUE\n", None),
        ("see [1] and [2/3]\n", None),
        ("[5/0] nonsense\n", None),
        ("[9/3] nonsense\n", None),
        ("", None),
    ],
)
def test_activity_is_read_from_output(line: str, activity: str | None) -> None:
    assert parse_activity(line) == activity


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
    assert lines[1] == "installing llama: compiling 45 % (87/193), 0:30 elapsed"
    assert lines[9] == "installing llama: compiling 45 % (87/193), 2:30 elapsed"
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
        "installing: compiling 45 % (87/193), 0:00 elapsed",
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
    with pytest.raises(StepFailed) as caught:
        run_step("building", [sys.executable, "-c", code], log, io.StringIO())
    message = str(caught.value)
    assert message.startswith("line 75.\n")
    assert "line 99.\n" in message
    assert f"{log}: building failed with status 3" in message
    assert caught.value.output in message


def test_a_failed_step_says_what_to_do(tmp_path: Path) -> None:
    code = "import sys; print('OSError: [Errno 28] No space left on device'); sys.exit(1)"
    with pytest.raises(StepFailed, match=r"(?s)status 1\.\nThe disk is full\..*TMPDIR"):
        run_step("installing", [sys.executable, "-c", code], tmp_path / "setup.log", io.StringIO())
