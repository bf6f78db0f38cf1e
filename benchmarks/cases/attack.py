"""What a client can do to the others: how long they wait, and what memory is held, while it misbehaves.

All attacks are bounded in number and time. A probe asks for ``/healthz`` over and over meanwhile, on a kept
connection; the longest time that it waited is how long the server's event loop was held.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.cases.held_streams import allow_files
from benchmarks.harness.memory import MIB
from benchmarks.harness.processes import BenchError, BenchServer
from benchmarks.harness.servers import Bench, Need, subject
from benchmarks.load.client import CHAT_PATH, JSON, post_request

COMPLETIONS_PATH = "/v1/completions"
PLACES = 10
SEND_TIMEOUT = 3
# In so many seconds the answers take their places.
SETTLE = 1.0
ANSWERS = 8  # of which each is sent by itself
PROBE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
PROBE_PAUSE = 0.002
PROBE_TIMEOUT = 60.0
# Nothing of an attack lasts longer, in seconds.
PATIENCE = 20.0
SPECIAL = "<|im_start|><|im_end|>"


@dataclass(frozen=True, slots=True)
class AttackPlan:
    body_bytes: int = 10_000_000
    silent: int = 1000
    silent_seconds: float = 3.0
    header_senders: int = 8
    header_bytes: int = 200 * 2**20
    readers: int = 2 * PLACES
    answer_bytes: int = 6_000_000  # more than the buffers of server and system
    special_bytes: int = 200_000

    @classmethod
    def quick(cls) -> AttackPlan:
        return cls(500_000, 50, 0.2, 2, 2**20, 4, 100_000)


@dataclass(slots=True)
class Probe:
    """What was seen during an attack: the longest wait of the probe in seconds, and resident bytes."""

    longest: float = 0.0
    resident: int = 0
    probes: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, server: BenchServer) -> None:
        process = psutil.Process(server.pid)
        with _connected(server.url, PROBE_TIMEOUT) as probe:
            while not self._stop.is_set():
                began = time.perf_counter()
                probe.sendall(PROBE)
                if not probe.recv(4096):
                    raise BenchError("the server closed the probe's connection")
                self.longest = max(self.longest, time.perf_counter() - began)
                self.probes += 1
                self.resident = max(self.resident, process.memory_info().rss)
                self._stop.wait(PROBE_PAUSE)

    def end(self) -> None:
        self._stop.set()


def measure(bench: Bench, plan: AttackPlan) -> dict[str, float]:
    """Attacks on the HTTP side, with the fake engine behind it. Raises `BenchError`."""
    allow_files(plan.silent + 1024)
    places = {"MAX_CONCURRENT_REQUESTS": str(PLACES), "SEND_TIMEOUT": str(SEND_TIMEOUT)}
    need = Need(env={"INFERENCE_ENGINE": "fake", "DEFAULT_MODEL": "auto", **places})
    with subject(bench, need) as server:
        _answered(server)
        requests = list(bodies(plan.body_bytes))  # made before: the probe shares this process
        before = psutil.Process(server.pid).memory_info().rss
        attacks: dict[str, Callable[[], Any]] = {
            "idle": lambda: time.sleep(plan.silent_seconds),
            "bodies": lambda: send_bodies(server, requests),
            "silent": lambda: stay_silent(server, plan),
            "headers": lambda: flood_headers(server, plan),
            "readers": lambda: read_nothing(server, plan),
        }
        found: dict[str, float] = {}
        most = before
        for name, attack in attacks.items():
            watch, result = _watched(server, attack)
            found[f"{name}_ms"] = 1e3 * watch.longest
            most = max(most, watch.resident)
            if isinstance(result, float):
                found["place_s"] = result
        _answered(server)
    return {**found, "grown_mib": (most - before) / MIB, "before_mib": before / MIB}


def measure_tokens(bench: Bench, plan: AttackPlan) -> dict[str, float]:
    """A prompt that is all special tokens, which a tokeniser finds one by one. Raises `BenchError`."""
    with subject(bench, Need()) as server:
        text = SPECIAL * (plan.special_bytes // len(SPECIAL))
        body = {"model": server.model(), "messages": [{"role": "user", "content": text}], "max_tokens": 1}
        watch, seconds = _watched(server, lambda: _timed(lambda: _post(server, CHAT_PATH, body)))
    return {"tokens_ms": 1e3 * watch.longest, "tokens_answer_s": seconds}


def bodies(size: int) -> Iterator[tuple[str, bytes]]:
    """Bodies of about ``size`` bytes or less, of which some can be served and most must be refused."""
    yield COMPLETIONS_PATH, b'{"model": "fake", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    yield COMPLETIONS_PATH, b'{"model": "fake", "prompt": [' + b"9" * (size // 2) + b"]}"
    yield COMPLETIONS_PATH, b'{"model": "fake", "prompt": "' + b"\\u0061" * (size // 6) + b'"}'
    yield COMPLETIONS_PATH, b'{"model": "none", "prompt": "' + b'\\"' * (size // 2) + b'"}'
    message, part = {"role": "user", "content": "x"}, {"type": "text", "text": "x"}
    numbered = {str(number): 1 for number in range(size // 16)}
    for fields in (
        {"messages": [message] * (size // 40)},
        {"messages": [message] * min(2048, size // 40)},
        {"messages": [{"role": "user", "content": [part] * (size // 32)}]},
        {"messages": [message], "metadata": numbered},
        {"prompt": [1] * (size // 4)},
        {"prompt": [1] * min(260_000, size // 4)},
        {"prompt": [1.5] * min(260_000, size // 5)},
        {"prompt": "x", "stop": ["x"] * (size // 6)},
        {"prompt": "x", "logit_bias": numbered},
    ):
        path = CHAT_PATH if "messages" in fields else COMPLETIONS_PATH
        yield path, json.dumps({"model": "fake", "max_tokens": 1, **fields}).encode()


def send_bodies(server: BenchServer, requests: Sequence[tuple[str, bytes]]) -> None:
    """Send each, one after the other, and read what comes. Raises `BenchError` for a 500."""
    for path, body in requests:
        _post(server, path, body)


def stay_silent(server: BenchServer, plan: AttackPlan) -> None:
    """Open connections that say nothing, or half a request."""
    with ExitStack() as opened:
        for number in range(plan.silent):
            connection = opened.enter_context(_connected(server.url))
            if number % 2:
                connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le")
        time.sleep(plan.silent_seconds)


def flood_headers(server: BenchServer, plan: AttackPlan) -> None:
    """Send headers without an end, from several connections at once, until they are cut."""
    piece = b"x" * 2**18

    def flood() -> None:
        with _connected(server.url) as connection, suppress(OSError):
            connection.sendall(b"GET / HTTP/1.1\r\na: ")
            until = time.monotonic() + PATIENCE
            for _ in range(plan.header_bytes // len(piece)):
                connection.sendall(piece)
                if time.monotonic() > until:
                    return

    senders = [threading.Thread(target=flood) for _ in range(plan.header_senders)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


def read_nothing(server: BenchServer, plan: AttackPlan) -> float:
    """Ask for more answers than there are places and read none; seconds until another client is served."""
    text = "x" * (plan.answer_bytes // ANSWERS // 2)
    echoed = {"model": "fake", "prompt": text, "max_tokens": 1, "echo": True, "n": ANSWERS}
    request = _request(server, COMPLETIONS_PATH, {**echoed, "stream": True})
    with ExitStack() as opened:
        for _ in range(plan.readers):
            connection = opened.enter_context(_connected(server.url, buffer=4096))
            connection.sendall(request)
        time.sleep(SETTLE)
        return _timed(lambda: _answered(server))


def _watched(server: BenchServer, attack: Callable[[], Any]) -> tuple[Probe, Any]:
    watch = Probe()
    thread = threading.Thread(target=watch.run, args=(server,))
    thread.start()
    try:
        result = attack()
    except OSError as error:
        raise BenchError(f"the server did not stand it: {error!r}") from None
    finally:
        watch.end()
        thread.join()
    if not watch.probes:
        raise BenchError("the server answered no probe")
    return watch, result


def _answered(server: BenchServer) -> None:
    """Raises `BenchError` unless a usual request is."""
    status = _post(server, COMPLETIONS_PATH, {"model": "fake", "prompt": "x", "max_tokens": 1})
    if status != 200:
        raise BenchError(f"a usual request was answered {status}")


def _post(server: BenchServer, path: str, body: Any) -> int:
    """The status of the answer, which is read to its end. Raises `BenchError` for a 500."""
    request = _request(server, path, body)
    with _connected(server.url, PROBE_TIMEOUT) as connection:
        connection.sendall(request)
        answer = bytearray()
        while data := connection.recv(2**16):
            answer += data
    status = int(answer.split(None, 2)[1]) if answer else 0
    if status == 500:
        raise BenchError(f"a body of {len(request):,} bytes was answered 500")
    return status


def _request(server: BenchServer, path: str, body: Any) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return post_request(server.url, path, data, {**JSON, "Connection": "close"})


@contextmanager
def _connected(url: str, timeout: float = PATIENCE, buffer: int | None = None) -> Iterator[socket.socket]:
    place = urlsplit(url)
    with socket.socket() as connection:
        if buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(timeout)
        connection.connect((str(place.hostname), place.port or 80))
        yield connection


def _timed(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
