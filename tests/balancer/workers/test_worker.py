"""Instances that are processes, with a small script in the place of the server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import psutil
import pytest

from balancer.proxy.client import ProxyClient
from balancer.workers.ports import listen
from balancer.workers.protocol import WorkerSpec, failed_message, ready_message
from balancer.workers.worker import Worker
from engines.base import EngineInfo
from engines.errors import CannotLoad, ModelLoadError, UnsupportedFeature
from support.worker_logs import line

ROOT = Path(__file__).parents[3]
INFO = EngineInfo(
    "llama_cpp", "m", 2048, 8, ("cpu",), frozenset({"chat", "sleep"}), memory=1000, memory_asleep=7
)

# What the server would do; the settings say how it misbehaves.
SCRIPT = """
import json, os, signal, socket, subprocess, sys, threading, time

def send(message):
    os.write(1, json.dumps(message).encode() + b"\\n")

start = json.loads(sys.stdin.readline())
spec, does = start["spec"], start["spec"]["settings"]
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(9)), daemon=True).start()
signal.signal(signal.SIGTERM, signal.SIG_IGN if does.get("stubborn") else lambda *_: os._exit(0))
if does.get("offspring"):
    offspring = subprocess.Popen(["sleep", "60"])
    print(f"offspring {offspring.pid}", file=sys.stderr, flush=True)
for line in does.get("says", ()):
    print(line, file=sys.stderr, flush=True)
for line in does.get("prints", ()):
    os.write(1, line.encode() + b"\\n")
send({"progress": 0.5, "phase": "loading"})
if "fails" in does:
    send(does["fails"])
    sys.exit(1)
if "exits" in does:
    sys.exit(does["exits"])
if does.get("loads_for_ever"):
    time.sleep(60)
listener = socket.socket(fileno=start["listener"])
send({"ready": json.loads(does["info"])})
answered = 0
while True:
    connection, _ = listener.accept()
    request = connection.recv(65536).decode()
    answered += 1
    is_ours = f"authorization: bearer {spec['key']}" in request.lower()
    known = is_ours and request.startswith("GET /v1/worker ")
    report = {"ok": not does.get("ill"), "detail": "ill", "stats": {"steps": answered}, "metrics": {"x": 1.5}}
    head = "HTTP/1.1 200 OK" if known else "HTTP/1.1 401 Unauthorized"
    connection.sendall((head + "\\r\\n\\r\\n" + json.dumps(report)).encode())
    connection.close()
"""
COMMAND = (sys.executable, "-S", "-c", SCRIPT)

Start = Callable[..., Awaitable[Worker]]


def spec(port: int = 18100, environment: dict[str, str] | None = None, **does: Any) -> WorkerSpec:
    does["info"] = json.dumps(ready_message(INFO)["ready"])
    return WorkerSpec("m", port, "secret", settings=does, environment=environment or {})


def children() -> list[int]:
    """Processes of this one's, without those of its libraries that stay from tests before (vLLM's, say)."""
    return [child.pid for child in psutil.Process().children() if child.pid not in OTHERS]


OTHERS: set[int] = set()


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    OTHERS.clear()
    OTHERS.update(children())
    yield
    assert not children()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    started: list[Worker] = []
    proxy = ProxyClient()

    async def start(spec: WorkerSpec, **options: Any) -> Worker:
        defaults = {"report": lambda *_: None, "interval": 30.0, "grace": 5.0, "command": COMMAND}
        defaults["proxy"] = proxy
        started.append(await Worker.start(spec, "instance_0", **(defaults | options)))
        return started[-1]

    yield start
    for worker in started:
        await worker.close()
    await proxy.close()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def is_gone(pid: int) -> bool:
    """A zombie that nobody of ours reaps is as good as gone."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# -- starting ----------------------------------------------------------------------------------------


async def test_it_starts_and_tells_what_it_is(start: Start) -> None:
    told: list[tuple[str, float]] = []
    worker = await start(spec(), report=lambda *progress: told.append(progress))
    assert told == [("loading", 0.5)]
    assert (await worker.health()).ok
    assert worker.url == f"http://127.0.0.1:{worker.port}"
    assert worker.key == "secret"
    assert "sleep" not in worker.info.capabilities
    assert worker.info.memory_asleep == 0
    assert worker.info.context_length == 2048
    with pytest.raises(UnsupportedFeature):
        await worker.sleep()


async def test_probes_bring_the_figures(start: Start) -> None:
    worker = await start(spec(), interval=0.2)
    await until(lambda: worker.stats().steps >= 2)
    assert worker.metrics() == {"x": 1.5}
    assert 1 < worker.memory_mb < 500
    assert worker.info.memory == pytest.approx(worker.memory_mb * 2**20, rel=0.5)
    assert 0 <= worker.cpu_percent < 200


async def test_a_port_in_use_is_passed_over(start: Start) -> None:
    with listen(18200) as other:
        port = other.getsockname()[1]
        worker = await start(spec(port), taken={port + 1})
        assert worker.port > port + 1


async def test_environment_is_added(start: Start) -> None:
    command = (
        sys.executable,
        "-S",
        "-c",
        "import os, sys; print(os.environ['DEVICES'], 'HOME' in os.environ, file=sys.stderr)",
    )
    with pytest.raises(ModelLoadError, match="status 0: 0,1 True"):
        await start(spec(environment={"DEVICES": "0,1"}), command=command)


async def test_it_has_none_of_our_secrets(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "API_KEYS": "sesame",
        "ADMIN_API_KEYS": "sesame",
        "HF_TOKEN": "sesame",
        "UPSTREAMS": "http://gpu1:8000/v1#weight=2&key=sesame",
        "HTTPS_PROXY": "http://me:sesame@proxy:3128",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HOME", "/cache")
    own = "dict(e.split('=', 1) for e in open('/proc/self/environ').read().split(chr(0)) if e)"
    told = "print('sesame' in str(found), found['HF_HOME'], found['GGML_NO_BACKTRACE'], file=sys.stderr)"
    command = (sys.executable, "-S", "-c", f"import sys; found = {own}; {told}")
    with pytest.raises(ModelLoadError, match="status 0: False /cache 1"):
        await start(spec(), command=command)


async def test_a_model_that_cannot_be_loaded(start: Start) -> None:
    with pytest.raises(CannotLoad, match=r"^no engine can load it$"):
        await start(spec(fails=failed_message(CannotLoad("no engine can load it"))))


async def test_a_process_that_ends_while_it_loads(start: Start) -> None:
    with pytest.raises(ModelLoadError, match=r"status 3: (.|\n)*out of luck"):
        await start(spec(says=["Traceback", "out of luck"], exits=3))


async def test_a_command_that_does_not_exist(start: Start) -> None:
    with pytest.raises(ModelLoadError, match="no process can be started for m"):
        await start(spec(), command=("/nowhere/python",))


async def test_cancelled_while_it_loads(start: Start) -> None:
    progress = asyncio.Event()
    starting = asyncio.create_task(
        start(spec(loads_for_ever=True, stubborn=True), report=lambda *_: progress.set())  # type: ignore[arg-type]
    )
    await progress.wait()
    pids = children()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert pids
    assert all(is_gone(pid) for pid in pids)


@pytest.mark.parametrize("steps", range(6))
async def test_cancelled_at_once(start: Start, steps: int) -> None:
    starting = asyncio.create_task(start(spec(loads_for_ever=True)))  # type: ignore[arg-type]
    for _ in range(steps):
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not children()


def test_it_is_the_same_under_uvloop() -> None:
    """Which is what servers run under."""
    uvloop = pytest.importorskip("uvloop")
    options: dict[str, Any] = {"report": lambda *_: None, "interval": 30.0, "grace": 5.0, "command": COMMAND}

    async def live() -> None:
        options["proxy"] = ProxyClient()
        for steps in range(6):
            starting = asyncio.create_task(Worker.start(spec(), "i", **options))
            for _ in range(steps):
                await asyncio.sleep(0)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            assert not children()
        with pytest.raises(ModelLoadError, match=r"status 3: (.|\n)*out of luck"):
            await Worker.start(spec(says=["out of luck"], exits=3), "i", **options)
        down = asyncio.Event()
        worker = await Worker.start(spec(offspring=True), "i", on_down=down.set, **options)
        os.kill(worker.pid, signal.SIGKILL)
        await asyncio.wait_for(down.wait(), 5)
        await worker.close()
        assert not children()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live())


# -- health ------------------------------------------------------------------------------------------


async def test_an_exit_is_noticed_at_once(start: Start) -> None:
    down = asyncio.Event()
    worker = await start(spec(offspring=True, says=["a warning"]), on_down=down.set)
    offspring = psutil.Process(worker.pid).children()
    os.kill(worker.pid, signal.SIGKILL)
    before = time.monotonic()
    await asyncio.wait_for(down.wait(), 5)
    assert time.monotonic() - before < 1
    health = await worker.health()
    assert not health.ok
    assert health.detail == "the process was killed by SIGKILL"  # what it said while loading is no reason
    await until(lambda: all(is_gone(each.pid) for each in offspring))


async def test_a_process_that_says_why_it_ends(start: Start) -> None:
    """The engine stopped making progress, say."""
    wrapped = SCRIPT.replace("answered = 0", 'send({"failed": "no step for 60 s"}); sys.exit(1)')
    down = asyncio.Event()
    worker = await start(spec(), on_down=down.set, command=(sys.executable, "-S", "-c", wrapped))
    await asyncio.wait_for(down.wait(), 5)
    assert (await worker.health()).detail == "the process ended with status 1: no step for 60 s"


async def test_a_stopped_process_is_found_and_killed_without_grace(start: Start) -> None:
    down: list[None] = []
    worker = await start(spec(), interval=0.1, grace=60.0, on_down=lambda: down.append(None))
    await until(lambda: worker.stats().steps > 0)
    os.kill(worker.pid, signal.SIGSTOP)
    await until(lambda: bool(down))
    assert (await worker.health()).detail == "it does not answer"
    async with asyncio.timeout(5):
        await worker.close()
    assert len(down) == 1
    assert is_gone(worker.pid)


async def test_an_engine_that_is_ill(start: Start) -> None:
    down = asyncio.Event()
    worker = await start(spec(ill=True), interval=0.1, on_down=down.set)
    await asyncio.wait_for(down.wait(), 5)
    assert (await worker.health()).detail == "ill"


async def test_a_wrong_key_is_a_failure(start: Start) -> None:
    worker = await start(spec(), interval=0.1)
    worker.key = "another"
    async with asyncio.timeout(5):
        while (await worker.health()).ok:
            await asyncio.sleep(0.01)
    assert "401 Unauthorized" in (await worker.health()).detail


async def test_a_suspect_is_probed_at_once(start: Start) -> None:
    worker = await start(spec(), interval=1000.0)
    await until(lambda: worker.stats().steps == 1)
    worker.suspect()
    await until(lambda: worker.stats().steps == 2, 2)


async def test_calls_that_fail_together_do_not_condemn(start: Start) -> None:
    worker = await start(spec(), interval=1000.0)
    for _ in range(10):
        worker.suspect()
    assert (await worker.health()).ok


# -- closing -----------------------------------------------------------------------------------------


async def test_close_lets_it_end(start: Start) -> None:
    down: list[None] = []
    worker = await start(spec(), on_down=lambda: down.append(None))
    await asyncio.gather(worker.close(), worker.close())
    await worker.close()
    assert is_gone(worker.pid)
    assert not down
    assert (await worker.health()).detail == "the process ended with status 0"


async def test_close_kills_what_does_not_end(start: Start) -> None:
    worker = await start(spec(stubborn=True, offspring=True), grace=0.2)
    offspring = psutil.Process(worker.pid).children()
    before = time.monotonic()
    await worker.close()
    assert time.monotonic() - before >= 0.2
    assert (await worker.health()).detail.startswith("the process was killed by SIGKILL")
    assert offspring
    await until(lambda: all(is_gone(each.pid) for each in offspring))


async def test_closing_goes_on_when_the_closer_is_cancelled(start: Start) -> None:
    worker = await start(spec(stubborn=True), grace=0.2)
    closing = asyncio.create_task(worker.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await until(lambda: is_gone(worker.pid))


# -- life line ---------------------------------------------------------------------------------------

PARENT = """
import asyncio, sys
from balancer.proxy.client import ProxyClient
from balancer.workers.worker import Worker
from balancer.workers.protocol import WorkerSpec

async def main(script, info):
    spec = WorkerSpec("m", 18300, "secret", settings={"info": info})
    command = (sys.executable, "-S", "-c", script)
    report = lambda *_: None
    worker = await Worker.start(
        spec, "i", proxy=ProxyClient(), report=report, interval=30.0, grace=1.0, command=command
    )
    print(worker.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


def test_it_does_not_outlive_a_parent_that_is_killed() -> None:
    info = json.dumps(ready_message(INFO)["ready"])
    command = [sys.executable, "-c", PARENT, SCRIPT, info]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.kill()
    asyncio.run(until(lambda: is_gone(pid)))


# -- logs --------------------------------------------------------------------------------------------


async def test_log_lines_become_ours(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    says = [line("served", "WARNING", tokens=3, name="n"), "plain words", "{no json"]
    worker = await start(spec(says=says))
    await until(lambda: "{no json" in caplog.messages)
    record = next(r for r in caplog.records if r.getMessage() == "served")
    assert (record.levelname, record.name) == ("WARNING", "inf")
    assert vars(record)["tokens"] == 3
    assert vars(record)["name_"] == "n"
    for message in ("served", "plain words"):
        record = next(r for r in caplog.records if r.getMessage() == message)
        assert (vars(record)["instance"], vars(record)["pid"]) == ("instance_0", worker.pid)


async def test_what_is_no_message_is_a_line_of_the_log(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    odd = [
        "5",
        "null",
        '"ready"',
        "[" * 5000,
        '{"progress": 1}',
        '{"ready": 5}',
        '{"ready": {}}',
        '{"failed"',
    ]
    worker = await start(spec(prints=odd))
    assert worker.info.model == "m"
    assert [message for message in caplog.messages if message in odd] == odd


REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


async def test_log_lines_belong_to_no_request(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen: list[str | None] = []

    def note(record: logging.LogRecord) -> bool:
        seen.append(REQUEST_ID.get())
        return True

    REQUEST_ID.set("req_1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caplog.handler, "filters", [note])
        worker = await start(spec(says=["plain words"]))
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: any("is gone" in message for message in caplog.messages))
    started, *others = seen
    assert started == "req_1"
    assert others == [None, None]
