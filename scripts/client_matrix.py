"""Show that the client libraries that people use work with a real server, and print the matrix.

``python -m scripts.client_matrix`` (`make test-clients`) installs the libraries once, into ``.venv-clients``,
serves the bundled model on a free port, and runs ``tests/clients`` in each environment. A library that no
registry gives is left out, and the matrix says so. ``--lock`` (`make lock-clients`) chooses new versions.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness.embedding_model import minilm
from benchmarks.harness.models import BUNDLED
from benchmarks.harness.processes import BenchError, running
from benchmarks.harness.servers import own_environment
from scripts.clients.environments import ROOT, TESTS, ClientEnvironment, ClientLibrary, environments
from scripts.setup.errors import SetupError

KEY = "key-of-the-client-tests"
CONTEXT_LENGTH = 2048
SETTINGS = {
    "API_KEYS": KEY,
    "CONTEXT_LENGTH": str(CONTEXT_LENGTH),
    "DEFAULT_MODEL": BUNDLED,
    "INFERENCE_MODE": "multi_instance",
    "MAX_CONCURRENT_MODELS": "2",  # the bundled one, and one for embeddings
    "LOG_LEVEL": "WARNING",
    "OLLAMA_API": "true",
    # Each library tries a wrong one.
    "RATE_LIMIT_WRONG_KEYS": "0",
}
NO_TESTS = 5


@dataclass(slots=True)
class Row:
    """What the matrix says of a library in an environment."""

    library: ClientLibrary
    environment: str
    version: str = ""
    left_out: str = ""
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        if self.left_out:
            return f"{self.library.name:<30} left out: {self.left_out}"
        numbers = ", ".join(f"{self.counts[name]} {name}" for name in ("passed", "failed", "skipped"))
        return f"{self.library.name:<30} {self.version:<10} {self.environment:<10} {numbers}"


def tests_in(environment: ClientEnvironment, url: str, args: Sequence[str]) -> tuple[int, list[Row]]:
    """pytest's status and the rows of ``environment``."""
    try:
        left_out = environment.install()
    except SetupError as error:
        left_out = {library.name: " ".join(str(error).split())[-300:] for library in environment.libraries}
    versions = environment.versions()
    rows = [
        Row(library, environment.name, versions.get(library.name, "?"), left_out.get(library.name, ""))
        for library in environment.libraries
    ]
    tested = [row for row in rows if not row.left_out]
    if not tested:
        return 0, rows
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [str(environment.venv.python), "-m", "pytest", f"--junit-xml={report}", *args]
        command += [str(row.library.tests.relative_to(TESTS)) for row in tested]
        status = subprocess.run(command, cwd=TESTS, env=surroundings(url), check=False).returncode
        count(report, {row.library.tests.stem: row for row in tested})
    return status, rows


def surroundings(url: str) -> Mapping[str, str]:
    """The environment of the tests: where the server is, and none of our packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {
        "ENGINEHOUSE_URL": url,
        "ENGINEHOUSE_KEY": KEY,
        "ENGINEHOUSE_CONTEXT_LENGTH": str(CONTEXT_LENGTH),
    }


def count(report: Path, rows: Mapping[str, Row]) -> None:
    """Add pytest's report to the rows, which are named by their test files."""
    if not report.exists():
        return
    for case in ElementTree.parse(report).iter("testcase"):
        names = f"{case.get('classname')}.{case.get('name')}".split(".")
        row = next((rows[name] for name in names if name in rows), None)
        if row is not None:
            kinds = {child.tag for child in case}
            result = (
                "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            )
            row.counts[result] += 1


def show(rows: Sequence[Row]) -> None:
    print("\nClient libraries, and what their tests said:\n")
    for row in rows:
        print(f"  {row}")
    total = sum((row.counts for row in rows), Counter[str]())
    print(f"\n{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped", flush=True)


def run_tests(args: Sequence[str]) -> int:
    statuses, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "app", "serve", "--host", "127.0.0.1", "--port"]
        # No other model is there, so the bundled one is found whatever the user has.
        settings = {**own_environment(), **SETTINGS, "MODEL_BASE_PATH": folder}
        minilm(Path(folder))
        log = Path(folder) / "logs" / "server.log"
        with running("server", lambda port: [*command, str(port)], settings, "/readyz", log) as server:
            for environment in environments():
                status, more = tests_in(environment, server.url, args)
                statuses.append(status)
                rows += more
        server_log = log.read_text(encoding="utf-8", errors="replace")
    show(rows)
    if any(status not in {0, NO_TESTS} for status in statuses):
        print("\nThe server's log:\n" + server_log[-4000:], file=sys.stderr)
        return 1
    if all(row.left_out for row in rows):
        print("not one client library could be installed", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Test the client libraries against a real server.")
    parser.add_argument("--lock", action="store_true", help="choose new versions within the ranges instead")
    options, args = parser.parse_known_args()
    os.chdir(ROOT)
    # So that the server ends too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if options.lock:
            for environment in environments():
                environment.write_lock()
            return 0
        return run_tests(args)
    except (SetupError, BenchError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
