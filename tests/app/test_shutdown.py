"""The end of the server's process: in time, whatever is going on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks.harness.processes import free_port

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
INSTANCES = 9
HANGS = """
import os, signal, threading, time
from app import uvicorn_options
uvicorn_options.CLOSING_SECONDS = 0.2

async def app(scope, receive, send):
    await receive()
    os.kill(os.getpid(), signal.SIGTERM)
    while True:  # the event loop hangs, and the server would never hear of the signal
        time.sleep(0.01)

uvicorn_options.run_server(app, port=0, log_config=None, timeout_graceful_shutdown=0)
"""
INTERRUPTED_TWICE = """
import asyncio, os, signal
from app import uvicorn_options

async def app(scope, receive, send):
    await receive()
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(60)

uvicorn_options.run_server(app, port=0, log_config=None, timeout_graceful_shutdown=60)
"""
INTERRUPTED_IMPORT = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests ignores it perhaps

class Finder:
    def find_spec(self, name, *more):
        if name == "app.cli.app":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from app.__main__ import main
main()
"""
GIVEN_UP_LOAD = """
import atexit, os, signal, time
from app import uvicorn_options
from engines.machine.dedicated_thread import in_own_thread

atexit.register(print, "what libraries clean up")

async def app(scope, receive, send):
    await receive()
    in_own_thread(lambda: time.sleep(60), "load")
    await send({"type": "lifespan.startup.complete"})
    os.kill(os.getpid(), signal.SIGTERM)
    await receive()
    await send({"type": "lifespan.shutdown.complete"})

uvicorn_options.end_well_on_sigterm()
uvicorn_options.run_server(app, port=0, log_config=None)
"""


@contextmanager
def starting(tmp_path: Path, **settings: object) -> Iterator[subprocess.Popen[str]]:
    """A server's process without models; its log is its stderr."""
    given = {"MODEL_BASE_PATH": tmp_path, "INFERENCE_ENGINE": "fake", "LOG_FORMAT": "text", **settings}
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | {name: str(value) for name, value in given.items()}
    command = [sys.executable, "-m", "app", "serve", "--host", "127.0.0.1", "--port", str(free_port())]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], text: str, times: int) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        times -= text in line
        if times <= 0:
            return
    raise AssertionError("the server ended by itself")


def test_it_ends_while_its_instances_start(tmp_path: Path) -> None:
    """With ten real processes it is no short test; only so many showed that the end never came."""
    fleet = {"CLUSTER_INSTANCES": INSTANCES, "MAX_INSTANCES": INSTANCES, "INSTANCE_PORT": free_port()}
    mode = {"INFERENCE_MODE": "load_balance", "INSTANCE_KIND": "process", "AUTO_SCALING": False}
    with starting(tmp_path, SHUTDOWN_GRACE=5, **mode, **fleet) as process:
        read_until(process, "started a process", INSTANCES)
        children = psutil.Process(process.pid).children(recursive=True)
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0
        assert time.monotonic() - told < 5.0
        _, alive = psutil.wait_procs(children, timeout=1)
        assert alive == []


def test_ctrl_c_ends_it_in_order_once_it_has_begun(tmp_path: Path) -> None:
    with starting(tmp_path) as process:
        read_until(process, "starting", 1)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("code", "status"), [(INTERRUPTED_TWICE, 130), (INTERRUPTED_IMPORT, 130), (GIVEN_UP_LOAD, 0)]
)
def test_it_ends_at_once_and_without_a_traceback(code: str, status: int) -> None:
    """Twice interrupted; interrupted while it is imported; or while a load that nothing can end goes on."""
    ended = run(code)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "", "")


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_it_ends_even_if_its_event_loop_hangs() -> None:
    ended = run(HANGS)
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert "in app" in ended.stderr, "it shows what hangs"
