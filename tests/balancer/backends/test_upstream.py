"""Upstreams as backends: health, models and calls. But for the last test, time and network are stand-ins."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import pytest

from app.dialects.openai.wire import WIRE
from balancer.backends.base import BackendState, Verdict
from balancer.backends.readiness import Coming, Gone
from balancer.backends.upstream import MAX_MODELS, UpstreamBackend
from balancer.backends.upstream_config import Upstream
from balancer.call import Call, Reply, ResumePoint, Target
from balancer.errors import BackendFailed, BadAnswer, BalancerError, NoBackend, NotLetIn
from balancer.health.tracker import WATCH_INTERVAL
from balancer.proxy.client import ProxyClient
from support.bad_upstream import DOCUMENT, answer, bad_upstream, reset
from support.balancing import is_ready
from support.clock import Pauses

MODELS = json.dumps({"object": "list", "data": [{"id": "m"}, {"id": "n"}]}).encode()
DOWN = BackendFailed("it is down")
URL = "http://gpu1:8000/v1"


class StubRelay(ProxyClient):
    """Gives what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.probed: tuple[int, bytes] | BackendFailed = (200, MODELS)
        self.probes: list[tuple[str, str | None]] = []
        self.posts: list[tuple[str, bytes, dict[str, Any]]] = []

    async def get(
        self, url: str, headers: Iterable[Any] = (), timeout: float = 5.0, **options: Any
    ) -> tuple[int, bytes]:
        self.probes.append((url, options["key"]))
        if isinstance(self.probed, BackendFailed):
            raise self.probed
        return self.probed

    async def post(self, url: str, headers: Iterable[Any], body: bytes, **options: Any) -> Reply:
        self.posts.append((url, body, options))
        raise BackendFailed("this is a stand-in")


class Bench:
    """A backend whose pauses end when the test says so."""

    def __init__(self, interval: float = 30.0, **options: Any) -> None:
        self.relay = StubRelay()
        self.now = 0.0
        self.pauses = Pauses()
        self.changes = 0
        self.backend = UpstreamBackend(
            Upstream("gpu1", URL, **options),
            self.relay,
            interval=interval,
            on_change=self._changed,
            clock=lambda: self.now,
            sleep=self.pauses.sleep,
        )

    async def probe(self, outcome: tuple[int, bytes] | BackendFailed = (200, MODELS)) -> None:
        """Let the next probe find ``outcome``."""
        self.relay.probed = outcome
        before = len(self.relay.probes)
        self.backend.start()
        await self.pauses.end()
        assert len(self.relay.probes) == before + 1

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.backend.stop()


OTHER = "0123456789abcdef"


def listed(*names: str, server_id: object = None) -> bytes:
    return json.dumps({"data": [{"id": name} for name in names], "server_id": server_id}).encode()


def call(model: str = "m", body: bytes = b'{"model":"m"}') -> Call:
    return Call("req_1", Target(model, None, model), "/v1/chat/completions", body, stream=False, wire=WIRE)


def gone(backend: UpstreamBackend) -> BalancerError:
    """Why waiting for ``backend`` is of no use now."""
    readiness = backend.readiness()
    assert isinstance(readiness, Gone)
    return readiness.explain()


# -- health -----------------------------------------------------------------------------------------


async def test_it_starts_until_a_probe_answers(bench: Bench) -> None:
    assert bench.backend.state is BackendState.STARTING
    assert not bench.backend.serves("m")
    coming = bench.backend.readiness()
    assert isinstance(coming, Coming)
    assert isinstance(coming.explain(), NoBackend)
    await bench.probe()
    assert bench.backend.state is BackendState.READY
    assert is_ready(bench.backend)
    assert bench.backend.models == ("m", "n")
    assert (bench.relay.probes, bench.pauses.asked, bench.changes) == ([(f"{URL}/models", None)], [30.0], 1)


async def test_one_whose_models_are_known_is_ready_at_once() -> None:
    bench = Bench(models={"ours": "theirs"}, api_key="sk-1")
    assert bench.backend.state is BackendState.READY
    assert bench.backend.serves("ours")
    await bench.probe()
    assert bench.backend.models == ("ours",)
    assert bench.relay.probes == [(f"{URL}/models", "sk-1")]
    assert bench.changes == 0
    await bench.backend.stop()


async def test_three_failures_and_two_successes(bench: Bench) -> None:
    await bench.probe()
    for expected in (BackendState.READY, BackendState.READY, BackendState.UNHEALTHY):
        await bench.probe(DOWN)
        assert bench.backend.state is expected
    assert not is_ready(bench.backend)
    assert bench.backend.status().detail == "it is down"
    obstacle = gone(bench.backend)
    assert isinstance(obstacle, NoBackend)
    assert obstacle.message == "upstream gpu1 is unhealthy: it is down"
    assert obstacle.retry_after
    await bench.probe()
    assert bench.backend.state is BackendState.UNHEALTHY
    await bench.probe()
    assert bench.backend.state is BackendState.READY
    assert bench.backend.status().detail == ""
    assert bench.changes == 3
    assert bench.pauses.asked == [30.0, *[WATCH_INTERVAL] * 4, 30.0]


async def test_errors_of_the_server_are_failures(bench: Bench) -> None:
    for _ in range(3):
        await bench.probe((503, b""))
    assert bench.backend.state is BackendState.UNHEALTHY
    assert bench.backend.status().detail == "GET /models gives status 503"


@pytest.mark.parametrize(("key", "detail"), [("sk-1", "does not accept the key"), (None, "it wants a key")])
async def test_a_wrong_key_is_told_at_once(key: str | None, detail: str) -> None:
    bench = Bench(api_key=key)
    await bench.probe((401, b""))
    assert bench.backend.state is BackendState.UNHEALTHY
    assert detail in bench.backend.status().detail
    readiness = bench.backend.readiness()
    assert isinstance(readiness, Gone)
    assert isinstance(readiness.explain(), BadAnswer)  # waiting does not mend it
    await bench.probe()
    assert bench.backend.state is BackendState.READY
    await bench.backend.stop()


@pytest.mark.parametrize(
    "found",
    [
        (404, b""),
        (204, b""),
        (200, b""),
        (200, b"[]"),
        (200, b"{"),
        (200, b"NaN"),
        (200, b"\xff"),
        (200, b"{}"),
        (200, b'{"data":[1]}'),
        (200, b'{"data":[null, [], "m"]}'),
        (200, b'{"data":{"id":"m"}}'),
        (200, b'{"data":"mmm"}'),
        (200, b'{"data":' + b"9" * 5000 + b"}"),
        (200, b'{"data":' + b"[" * 100_000),
        (200, b'{"server_id":' + b"[" * 500 + b"]" * 500 + b"}"),
        (200, b"[" * 100_000),
    ],
)
async def test_a_server_without_a_list_lives(bench: Bench, found: tuple[int, bytes]) -> None:
    await bench.probe(found)
    assert bench.backend.state is BackendState.READY
    assert bench.backend.models == ()
    assert "name its models in the settings" in bench.backend.status().detail


async def test_only_names_are_taken_from_a_list(bench: Bench) -> None:
    entries: list[Any] = [{"id": "m", "created": float("nan")}, {"id": 3}, {"id": None}, {}, 7, {"id": ["m"]}]
    names = ["", "a b", "a\nb", "a\x1b[31m", "x" * 201, "auto", "\u2028", "ü/ö:latest"]
    entries += [{"id": name} for name in names]
    await bench.probe((200, json.dumps({"data": entries}).encode()))
    assert bench.backend.models == ("m", "ü/ö:latest")


async def test_there_is_an_end_to_lists(bench: Bench) -> None:
    entries = [{"id": f"m{number}"} for number in range(MAX_MODELS + 5)]
    await bench.probe((200, json.dumps({"data": entries}).encode()))
    assert len(bench.backend.models) == MAX_MODELS


async def test_it_is_this_server_itself(bench: Bench) -> None:
    await bench.probe((200, listed("m", server_id=bench.relay.server_id)))
    assert bench.backend.state is BackendState.UNHEALTHY
    assert "it is this server itself" in gone(bench.backend).message
    assert bench.backend.models == ()
    await bench.probe((200, listed("m", server_id=OTHER)))
    assert bench.backend.state is BackendState.READY


async def test_calls_do_not_go_round_in_circles(bench: Bench) -> None:
    await bench.probe((200, listed("m", server_id=OTHER)))
    ours = bench.relay.server_id
    for hops, admitted in [
        ((), True),
        (("1" * 16, "2" * 16), True),
        (("1" * 16, "2" * 16, "3" * 16), False),
        ((ours,), False),
        (("1" * 16, ours), False),
        ((OTHER,), False),
    ]:
        assert bench.backend.admits(replace(call(), hops=hops)) is admitted, hops


async def test_models_come_and_go(bench: Bench) -> None:
    await bench.probe()
    await bench.probe((200, b'{"data":[{"id":"other"}]}'))
    assert bench.backend.models == ("other",)
    assert bench.changes == 2
    await bench.probe((200, b'{"data":[{"id":"other"}]}'))
    assert bench.changes == 2
    with pytest.raises(BackendFailed, match="does not have model m any more"):
        await bench.backend.run(call())


async def test_a_failed_call_is_looked_into_at_once(bench: Bench) -> None:
    await bench.probe()
    bench.relay.probed = DOWN
    bench.backend.end(bench.backend.begin(call()), Verdict.FAILURE, 0.1)
    await bench.pauses.settle()
    assert len(bench.relay.probes) == 2
    assert bench.pauses.asked == [30.0, WATCH_INTERVAL]
    bench.backend.suspect()
    await bench.pauses.settle()
    assert bench.backend.state is BackendState.UNHEALTHY


async def test_an_open_breaker_is_an_obstacle(bench: Bench) -> None:
    await bench.probe()
    while bench.backend.breaker.state == "closed":
        bench.backend.breaker.on_failure(bench.backend.breaker.on_begin())
    obstacle = gone(bench.backend)
    assert isinstance(obstacle, NoBackend)
    assert obstacle.retry_after == pytest.approx(30, rel=0.2)
    bench.now = 40.0
    assert is_ready(bench.backend)


async def test_draining(bench: Bench) -> None:
    await bench.probe()
    bench.backend.drain()
    assert bench.backend.state is BackendState.DRAINING
    assert not is_ready(bench.backend)
    assert bench.changes == 2


async def test_its_limit() -> None:
    bench = Bench(models={"m": "m"}, max_concurrent=1, weight=2.0)
    ticket = bench.backend.begin(call())
    assert not is_ready(bench.backend)
    bench.backend.end(ticket, Verdict.SUCCESS, 0.1)
    assert is_ready(bench.backend)
    assert bench.backend.weight == 2.0


# -- calls ------------------------------------------------------------------------------------------


async def test_a_call_goes_where_the_url_says() -> None:
    bench = Bench(models={"m": "m"}, api_key="sk-1")
    asked = call(body=b'{ "model": "m" }')
    with pytest.raises(BackendFailed):
        await bench.backend.run(asked)
    options = {
        "wire": WIRE, "meter": asked.meter, "key": "sk-1", "request_id": "req_1", "hops": (), "guard": None,
    }  # fmt: skip
    assert bench.relay.posts == [(f"{URL}/chat/completions", b'{ "model": "m" }', options)]


async def test_a_model_by_its_other_name() -> None:
    bench = Bench(models={"m": "org/theirs"})
    body = {"model": "m", "messages": [{"content": 'ü "model" \ud800'}], "metadata": {"model": "m"}}
    with pytest.raises(BackendFailed):
        await bench.backend.run(call(body=json.dumps(body).encode()))
    [(_, sent, _)] = bench.relay.posts
    assert json.loads(sent) == {**body, "model": "org/theirs"}


async def test_it_cannot_go_on_with_an_answer() -> None:
    bench = Bench(models={"m": "m"})
    with pytest.raises(BackendFailed, match="another backend began"):
        await bench.backend.run(call(), ResumePoint((1,), 1700))
    assert bench.relay.posts == []


def test_its_status_tells_no_key() -> None:
    bench = Bench(models={"m": "m"}, api_key="secret")
    status = bench.backend.status()
    assert (status.kind, status.name, status.url, status.models) == ("remote", "gpu1", URL, ("m",))
    assert "secret" not in repr(status)


# -- over the wire ----------------------------------------------------------------------------------

KEY = "sk-1234567890abcdefghijklmnop"


@pytest.mark.parametrize("status", [b"401 No", b"403 No", b"407 No"])
async def test_a_key_that_is_refused(status: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the client nor the log gets what the upstream says of the key."""
    said = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY[:7]}****{KEY[-4:]}"}}).encode()
    relay = ProxyClient()
    async with bad_upstream(answer(said, status=status), answer(said, status=status), answer()) as upstream:
        backend = UpstreamBackend(Upstream("gpu1", upstream.url, KEY, models={"m": "m"}), relay, interval=1.0)
        with caplog.at_level(logging.INFO, logger="balancer"):
            for _ in range(2):
                with pytest.raises(NotLetIn) as refused:
                    await backend.run(call())
            assert refused.value.status == int(status[:3])
            assert b"".join([data async for data in (await backend.run(call())).body]) == DOCUMENT
    await relay.close()
    reason = f"does not accept the key it was given (status {status[:3].decode()})"
    assert refused.value.message == f"upstream gpu1 {reason}: that is for this server's operator to mend"
    logged = [each.getMessage() for each in caplog.records if each.name.startswith("balancer")]
    assert logged == [f"upstream gpu1 serves no calls: it {reason}"]
    assert KEY[:7] not in refused.value.message + caplog.text


async def test_over_the_wire() -> None:
    relay = ProxyClient()
    async with bad_upstream(answer(MODELS), answer(), reset) as upstream:
        backend = UpstreamBackend(Upstream("gpu1", upstream.url), relay, interval=0.05)
        backend.start()
        while backend.state is not BackendState.READY:
            await asyncio.sleep(0.001)
        assert b"".join([data async for data in (await backend.run(call())).body]) == DOCUMENT
        while backend.state is not BackendState.UNHEALTHY:
            await asyncio.sleep(0.001)
        await backend.stop()
    await relay.close()
