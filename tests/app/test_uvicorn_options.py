"""How the server's process is set up."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys

import pytest

from app.connections import EdgeConnection
from app.settings import Settings
from app.uvicorn_options import uvicorn_options

pytestmark = pytest.mark.processes

LIMIT = """
import resource
from app.uvicorn_options import allow_open_files
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
allow_open_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64)
"""
END = """
import os, signal
from app.uvicorn_options import end_well_on_sigterm
end_well_on_sigterm()
os.kill(os.getpid(), signal.SIGTERM)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    assert run(LIMIT).stdout.strip() == "True"


def test_to_be_told_to_end_is_no_failure() -> None:
    assert run(END).returncode == 0
    assert run(END.replace("end_well_on_sigterm()", "pass")).returncode == -signal.SIGTERM


def test_the_options_reach_a_process_that_reloads() -> None:
    options = uvicorn_options(Settings(_env_file=None, send_timeout=7))
    made = pickle.loads(pickle.dumps(options))["http"]
    assert made.func is EdgeConnection
    assert made.keywords["patience"].send == 7


def test_connections_outlive_the_pools_of_proxies() -> None:
    """nginx and cloud load balancers keep theirs for 60 s: what closes sooner here is a 502 there."""
    assert uvicorn_options(Settings(_env_file=None))["timeout_keep_alive"] > 60
