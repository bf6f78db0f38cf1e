"""Instances that are processes, with a small script in the place of the server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
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
from balancer.workers import usage as meter
from balancer.workers.logs import LINES_PER_SECOND, Lines, LogRelay
from balancer.workers.ports import listen
from balancer.workers.protocol import WorkerSpec, failed_message, info_from, ready_message
from balancer.workers.usage import ProcessFigures
from balancer.workers.worker import Worker
from engines.base import EngineInfo
from engines.errors import CannotLoad, ModelLoadError, UnsupportedFeature

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
    known = is_ours and request.startswith("GET /v1/instance ")
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
    for instance in started:
        await instance.close()
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
    instance = await start(spec(), report=lambda *progress: told.append(progress))
    assert told == [("loading", 0.5)]
    assert (await instance.health()).ok
    assert instance.url == f"http://127.0.0.1:{instance.port}"
    assert instance.key == "secret"
    assert "sleep" not in instance.info.capabilities
    assert instance.info.memory_asleep == 0
    assert instance.info.context_length == 2048
    with pytest.raises(UnsupportedFeature):
        await instance.sleep()


async def test_probes_bring_the_figures(start: Start) -> None:
    instance = await start(spec(), interval=0.2)
    await until(lambda: instance.stats().steps >= 2)
    assert instance.metrics() == {"x": 1.5}
    assert 1 < instance.memory_mb < 500
    assert instance.info.memory == pytest.approx(instance.memory_mb * 2**20, rel=0.5)
    assert 0 <= instance.cpu_percent < 200


def test_cpu_is_measured_over_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now, used = 100.0, 3.0
    monkeypatch.setattr(meter.time, "monotonic", lambda: now)
    monkeypatch.setattr(meter, "_usage", lambda process: (used, 7))
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive=False: [])
    cpu = meter.ProcessMeter(os.getpid())
    assert cpu.sample() == ProcessFigures(0.0, 7)
    now, used = 100.01, 3.01
    assert cpu.sample().cpu_percent == 0
    now, used = 102.0, 4.0
    assert cpu.sample().cpu_percent == pytest.approx(50)
    now, used = 104.0, 1.0  # a child of its own has ended
    assert cpu.sample().cpu_percent == 0


async def test_a_port_in_use_is_passed_over(start: Start) -> None:
    with listen(18200) as other:
        port = other.getsockname()[1]
        instance = await start(spec(port), taken={port + 1})
        assert instance.port > port + 1


def test_no_port_is_left() -> None:
    with pytest.raises(OSError, match="no port from 65535 up is free"):
        listen(65535, taken={65535})


async def test_environment_is_added(start: Start) -> None:
    command = (
        sys.executable,
        "-S",
        "-c",
        "import os, sys; print(os.environ['DEVICES'], 'HOME' in os.environ, file=sys.stderr)",
    )
    with pytest.raises(ModelLoadError, match="status 0: 0,1 True"):
        await start(spec(environment={"DEVICES": "0,1"}), command=command)


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
        instance = await Worker.start(spec(offspring=True), "i", on_down=down.set, **options)
        os.kill(instance.pid, signal.SIGKILL)
        await asyncio.wait_for(down.wait(), 5)
        await instance.close()
        assert not children()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live())


# -- health ------------------------------------------------------------------------------------------


async def test_an_exit_is_noticed_at_once(start: Start) -> None:
    down = asyncio.Event()
    instance = await start(spec(offspring=True, says=["a warning"]), on_down=down.set)
    offspring = psutil.Process(instance.pid).children()
    os.kill(instance.pid, signal.SIGKILL)
    before = time.monotonic()
    await asyncio.wait_for(down.wait(), 5)
    assert time.monotonic() - before < 1
    health = await instance.health()
    assert not health.ok
    assert health.detail == "the process was killed by SIGKILL"  # what it said while loading is no reason
    await until(lambda: all(is_gone(each.pid) for each in offspring))


async def test_a_process_that_says_why_it_ends(start: Start) -> None:
    """The engine stopped making progress, say."""
    wrapped = SCRIPT.replace("answered = 0", 'send({"failed": "no step for 60 s"}); sys.exit(1)')
    down = asyncio.Event()
    instance = await start(spec(), on_down=down.set, command=(sys.executable, "-S", "-c", wrapped))
    await asyncio.wait_for(down.wait(), 5)
    assert (await instance.health()).detail == "the process ended with status 1: no step for 60 s"


async def test_a_stopped_process_is_found_and_killed_without_grace(start: Start) -> None:
    down: list[None] = []
    instance = await start(spec(), interval=0.1, grace=60.0, on_down=lambda: down.append(None))
    await until(lambda: instance.stats().steps > 0)
    os.kill(instance.pid, signal.SIGSTOP)
    await until(lambda: bool(down))
    assert (await instance.health()).detail == "it does not answer"
    async with asyncio.timeout(5):
        await instance.close()
    assert len(down) == 1
    assert is_gone(instance.pid)


async def test_an_engine_that_is_ill(start: Start) -> None:
    down = asyncio.Event()
    instance = await start(spec(ill=True), interval=0.1, on_down=down.set)
    await asyncio.wait_for(down.wait(), 5)
    assert (await instance.health()).detail == "ill"


async def test_a_wrong_key_is_a_failure(start: Start) -> None:
    instance = await start(spec(), interval=0.1)
    instance.key = "another"
    async with asyncio.timeout(5):
        while (await instance.health()).ok:
            await asyncio.sleep(0.01)
    assert "401 Unauthorized" in (await instance.health()).detail


async def test_a_suspect_is_probed_at_once(start: Start) -> None:
    instance = await start(spec(), interval=1000.0)
    await until(lambda: instance.stats().steps == 1)
    instance.suspect()
    await until(lambda: instance.stats().steps == 2, 2)


async def test_calls_that_fail_together_do_not_condemn(start: Start) -> None:
    instance = await start(spec(), interval=1000.0)
    for _ in range(10):
        instance.suspect()
    assert (await instance.health()).ok


# -- closing -----------------------------------------------------------------------------------------


async def test_close_lets_it_end(start: Start) -> None:
    down: list[None] = []
    instance = await start(spec(), on_down=lambda: down.append(None))
    await asyncio.gather(instance.close(), instance.close())
    await instance.close()
    assert is_gone(instance.pid)
    assert not down
    assert (await instance.health()).detail == "the process ended with status 0"


async def test_close_kills_what_does_not_end(start: Start) -> None:
    instance = await start(spec(stubborn=True, offspring=True), grace=0.2)
    offspring = psutil.Process(instance.pid).children()
    before = time.monotonic()
    await instance.close()
    assert time.monotonic() - before >= 0.2
    assert (await instance.health()).detail.startswith("the process was killed by SIGKILL")
    assert offspring
    await until(lambda: all(is_gone(each.pid) for each in offspring))


async def test_closing_goes_on_when_the_closer_is_cancelled(start: Start) -> None:
    instance = await start(spec(stubborn=True), grace=0.2)
    closing = asyncio.create_task(instance.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await until(lambda: is_gone(instance.pid))


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
    instance = await Worker.start(
        spec, "i", proxy=ProxyClient(), report=report, interval=30.0, grace=1.0, command=command
    )
    print(instance.pid, flush=True)
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


def line(event: str, level: str = "INFO", **data: Any) -> str:
    return json.dumps({"timestamp": "…", "level": level, "module": "inf", "event": event, "data": data})


async def test_log_lines_become_ours(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    says = [line("served", "WARNING", tokens=3, name="n"), "plain words", "{no json"]
    instance = await start(spec(says=says))
    await until(lambda: "{no json" in caplog.messages)
    record = next(r for r in caplog.records if r.getMessage() == "served")
    assert (record.levelname, record.name) == ("WARNING", "inf")
    assert vars(record)["tokens"] == 3
    assert vars(record)["name_"] == "n"
    for message in ("served", "plain words"):
        record = next(r for r in caplog.records if r.getMessage() == message)
        assert (vars(record)["instance"], vars(record)["pid"]) == ("instance_0", instance.pid)


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
        instance = await start(spec(says=["plain words"]))
        os.kill(instance.pid, signal.SIGKILL)
        await until(lambda: any("is gone" in message for message in caplog.messages))
    started, *others = seen
    assert started == "req_1"
    assert others == [None, None]


def test_lines_are_cut() -> None:
    lines = Lines(4)
    assert lines.feed(b"ab") == []
    assert lines.feed(b"c\nde") == [b"abc"]
    for _ in range(1000):
        assert lines.feed(b"x" * 100) == []
    assert lines.feed(b"\nnext\nla") == [b"dexx", b"next"]
    assert lines.end() == [b"la"]
    assert lines.end() == []


def test_a_flood_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    now = 0.0
    log = LogRelay({"instance": "i"}, clock=lambda: now)
    for _ in range(LINES_PER_SECOND + 7):
        log.take(b"spam")
    assert caplog.messages == ["spam"] * LINES_PER_SECOND
    now = 1.0
    log.take(b"later")
    assert caplog.messages[-2:] == ["7 lines of the log were dropped: too many at once", "later"]


@pytest.mark.parametrize("text", ["[" * 10000, '{"level": 1}', '{"a":' * 5000, "{}", '"'])
def test_what_is_no_log_line_is_logged_as_it_is(text: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    LogRelay({}).take(text.encode())
    assert caplog.messages == [text]


def test_last_words_are_errors_and_plain_lines() -> None:
    log = LogRelay({})
    for words in (line("all is well"), line("it broke", "ERROR"), "Traceback"):
        log.take(words.encode())
    assert log.last_words == "it broke\nTraceback"


def test_what_an_instance_is_crosses_whole() -> None:
    info = info_from(json.loads(json.dumps(ready_message(INFO)))["ready"])
    assert info == EngineInfo("llama_cpp", "m", 2048, 8, ("cpu",), frozenset({"chat"}), memory=1000)


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(spec())


def test_listening_excludes_others() -> None:
    with listen(18400) as listener, pytest.raises(OSError, match="in use"):
        socket.create_server(listener.getsockname())
