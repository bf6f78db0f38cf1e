"""Instances of models over the real manager: how they come, share the calls, and go."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.dialects.openai.wire import WIRE
from balancer.backends.base import BackendState, Verdict
from balancer.call import Call, Target
from balancer.dispatch import FAILURES, Dispatch, Failovers
from balancer.errors import UnknownModel
from balancer.instances import Deployment, InstanceKind
from balancer.lease import Lease
from balancer.policies import Strategy
from engines.errors import EngineError, ModelLoadError
from engines.lifecycle.errors import ModelConflict
from engines.lifecycle.states import LoadOptions, ModelState, Retention
from support.balancing import EngineBody, StubBackend, World, call, is_ready, turns

MakeWorld = Callable[..., World]

THREE = {"a": Deployment(3)}


async def leases(world: World, count: int, model: str = "a") -> list[Lease]:
    return [await world.balancer.acquire(call(model)) for _ in range(count)]


def names(held: list[Lease]) -> list[str]:
    return [lease.backend.name for lease in held]


def release(held: list[Lease]) -> None:
    for lease in held:
        lease.release()


class Client:
    """Asks for an answer without end, and follows it wherever it goes on."""

    def __init__(self, world: World) -> None:
        self.data = b""
        self.failovers = Failovers()
        self._serving = Dispatch(world.balancer, call("a", resumable=True), self.failovers)
        self.task = world.start(self._follow())

    @property
    def backend(self) -> str:
        return self._serving.backend

    @property
    def body(self) -> EngineBody:
        assert self._serving._reply is not None
        body = self._serving._reply.body
        assert isinstance(body, EngineBody)
        return body

    async def _follow(self) -> bytes:
        reply, self.data = await self._serving.open()
        body = reply.body
        while True:
            try:
                async for data in body:
                    self.data += data
                break
            except FAILURES as failure:
                body, data = await self._serving.resume(failure)
                self.data += data
        self._serving.finish()
        return self.data


# -- coming ----------------------------------------------------------------------------------------


async def test_replicas_follow_once_the_first_is_ready(make_world: MakeWorld) -> None:
    world = make_world(deployments=THREE)
    world.loader.go["a"] = asyncio.Event()
    assert world.states() == ["stopped"] * 3
    waiting = asyncio.create_task(world.balancer.acquire(call("a")))
    await turns()
    assert world.states() == ["starting", "stopped", "stopped"]
    world.loader.go["a"].set()
    (await waiting).release()
    await turns()
    assert world.states() == ["ready"] * 3
    assert world.loader.loads == ["a"] * 3
    assert [status.name for status in world.fleet.statuses()] == ["instance_0", "instance_1", "instance_2"]


async def test_calls_are_shared(make_world: MakeWorld) -> None:
    world = make_world(deployments=THREE)
    await world.ready()
    held = await leases(world, 6)
    assert Counter(names(held)) == {"instance_0": 2, "instance_1": 2, "instance_2": 2}
    assert world.manager.status("a").inflight == 6
    release(held)
    assert world.manager.status("a").inflight == 0


async def test_replicas_take_only_free_room(make_world: MakeWorld) -> None:
    world = make_world(deployments={"a": Deployment(5)}, sizes={"a": 2, "b": 3}, ram=9, max_models=2)
    await world.ready("b")
    await world.ready("a")
    assert world.states() == ["ready"] * 3 + ["stopped"] * 2
    assert world.states("b") == ["ready"]


async def test_replicas_go_for_another_model_and_come_back(make_world: MakeWorld) -> None:
    world = make_world(deployments=THREE, sizes={"a": 2, "b": 2}, ram=6, max_models=2)
    await world.ready("a")
    assert world.states() == ["ready"] * 3
    await world.ready("b")
    assert Counter(world.states()) == {"ready": 2, "stopped": 1}
    await world.fleet.unload("b")
    await world.later(1)
    assert world.states() == ["ready"] * 3


async def test_replicas_are_loaded_as_the_first_was(make_world: MakeWorld) -> None:
    world = make_world(deployments=THREE)
    world.fleet.ensure("a")
    await world.manager.load("a", LoadOptions(context_length=512))
    await turns()
    assert world.loader.options == [LoadOptions(context_length=512)] * 3


async def test_each_model_has_its_own_instances(make_world: MakeWorld) -> None:
    world = make_world(
        deployments={"a": Deployment(2), "b": Deployment(2, InstanceKind.PROCESS, weight=3.0)}, max_models=2
    )
    await world.ready("a")
    await world.ready("b")
    assert world.started == ["instance_2", "instance_3"]
    assert [backend.weight for backend in world.backends("b")] == [3.0, 3.0]
    assert world.fleet.models() == ["a", "b"]
    assert [status.is_replica for status in world.fleet.statuses()] == [False, True, False, True]


# -- going -----------------------------------------------------------------------------------------


async def test_replicas_go_with_an_evicted_model(make_world: MakeWorld) -> None:
    world = make_world(deployments={"a": Deployment(2), "b": Deployment(2)})
    for model, other in (("a", "b"), ("b", "a"), ("a", "b")):
        await world.ready(model)
        await turns()
        assert world.states(model) == ["ready"] * 2
        assert world.states(other) == ["stopped"] * 2


async def test_replicas_go_when_the_model_expires(make_world: MakeWorld) -> None:
    world = make_world(deployments=THREE)
    world.loader.retentions["a"] = Retention(keep_alive=10.0)
    await world.ready()
    await world.later(9)
    assert world.states() == ["ready"] * 3
    await world.later(1)
    await turns()
    assert world.states() == ["stopped"] * 3
    assert [engine.closed for engine in world.loader.engines] == [True] * 3


async def test_a_model_with_a_busy_replica_does_not_expire(make_world: MakeWorld) -> None:
    world = make_world(deployments={"a": Deployment(2)})
    world.loader.retentions["a"] = Retention(keep_alive=10.0)
    await world.ready()
    held = await leases(world, 2)
    replica = next(lease for lease in held if lease.backend.name == "instance_1")
    release([lease for lease in held if lease is not replica])
    await world.later(100)
    assert world.states() == ["ready"] * 2
    replica.release()
    await world.later(9)
    assert world.states() == ["ready"] * 2
    await world.later(1)
    await turns()
    assert world.states() == ["stopped"] * 2


async def test_a_model_with_a_busy_replica_is_not_evicted_but_yields(make_world: MakeWorld) -> None:
    world = make_world(deployments={"a": Deployment(2)})
    await world.ready()
    held = await leases(world, 2)
    held.sort(key=lambda lease: lease.backend.name)
    held[0].release()
    other = asyncio.create_task(world.balancer.acquire(call("b")))
    late = asyncio.create_task(world.balancer.acquire(call("a")))
    await turns()
    assert (world.states(), other.done(), late.done()) == (["ready"] * 2, False, False)
    assert not any(is_ready(backend) for backend in world.backends())
    held[1].release()
    (await other).release()
    (await late).release()


async def test_unloading_takes_all_instances_and_lets_calls_end(make_world: MakeWorld) -> None:
    world = make_world(deployments=THREE)
    await world.ready()
    held = await leases(world, 3)
    unloading = world.start(world.fleet.unload("a"))
    await turns()
    assert world.states() == ["draining"] * 3
    assert not any(engine.closed for engine in world.loader.engines)
    release(held)
    await unloading
    assert world.states() == ["stopped"] * 3


async def test_unloading_by_force(make_world: MakeWorld) -> None:
    world = make_world(deployments=THREE)
    await world.ready()
    held = await leases(world, 3)
    await world.fleet.unload("a", force=True)
    assert [engine.closed for engine in world.loader.engines] == [True] * 3
    release(held)


async def test_a_pinned_model_keeps_its_replicas(make_world: MakeWorld) -> None:
    world = make_world(deployments={"a": Deployment(2)})
    world.loader.retentions["a"] = Retention(pin=True)
    await world.ready()
    with pytest.raises(ModelConflict):
        await world.fleet.unload("a")
    assert world.states() == ["ready"] * 2


# -- crashing --------------------------------------------------------------------------------------


async def crash(world: World, index: int) -> None:
    world.engine(world.backends()[index]).healthy = False
    world.manager.look(world.backends()[index].instance.key)
    await turns()


@pytest.mark.parametrize("index", [0, 1])
async def test_what_crashes_is_started_again_while_the_others_serve(
    make_world: MakeWorld, index: int
) -> None:
    world = make_world(deployments=THREE)
    await world.ready()
    for pause in (1.0, 2.0, 4.0):
        await crash(world, index)
        assert Counter(world.states()) == {"ready": 2, "failed": 1}
        held = await leases(world, 4)
        assert f"instance_{index}" not in names(held)
        release(held)
        await world.later(pause - 0.1)
        assert world.states()[index] == "failed"
        await world.later(0.1)
        assert world.states() == ["ready"] * 3
    assert world.backends()[index].status().restarts == 3


async def test_a_crashed_replica_comes_back_after_the_model_rested(make_world: MakeWorld) -> None:
    """It was called off while it waited to be started again."""
    world = make_world(deployments={"a": Deployment(2)})
    await world.ready()
    await crash(world, 1)
    await world.fleet.unload("a")
    await turns()
    assert world.states() == ["stopped"] * 2
    await world.ready()
    assert world.states() == ["ready"] * 2


async def test_a_call_on_what_crashes_goes_on_elsewhere(make_world: MakeWorld) -> None:
    world = make_world(deployments={"a": Deployment(2)})
    await world.ready()
    client = Client(world)
    await turns()
    client.body.step()
    await turns()
    backend = next(b for b in world.backends() if b.name == client.backend)
    world.engine(backend).healthy = False
    world.engine(backend).break_all("out of memory")
    await turns()
    assert client.backend != backend.name
    client.body.end()
    assert await client.task == b"012"
    assert (backend.state, backend.failures) == (BackendState.FAILED, 1)


# -- scaling ---------------------------------------------------------------------------------------


async def test_scaling_up_and_down(make_world: MakeWorld) -> None:
    world = make_world()
    await world.ready()
    assert world.fleet.scale("a", 3) == 3
    await turns()
    assert world.states() == ["ready"] * 3
    assert world.fleet.scale("a", 1) == 1
    await turns()
    assert [backend.name for backend in world.backends()] == ["instance_0"]
    assert world.fleet.scale("a", 0) == 1
    assert world.fleet.scale("a", -1) == 1
    await turns()
    assert world.states() == ["ready"]


async def test_what_goes_ends_its_calls_first(make_world: MakeWorld) -> None:
    world = make_world(deployments=THREE)
    await world.ready()
    held = await leases(world, 3)
    assert world.fleet.scale("a", 2) == 2
    await turns()
    assert world.states() == ["ready", "ready", "draining"]
    more = await leases(world, 2)
    assert sorted(names(more)) == ["instance_0", "instance_1"]
    release(held)
    await turns()
    assert world.states() == ["ready"] * 2
    release(more)


async def test_what_does_not_end_in_time_goes_on_elsewhere(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world(deployments={"a": Deployment(2)}, grace=0.0)
    await world.ready()
    clients = [Client(world), Client(world)]
    await turns()
    with caplog.at_level(logging.WARNING, "balancer"):
        world.fleet.scale("a", 1)
        await turns(60)
    assert "instance_1 still had calls" in caplog.text
    assert [client.backend for client in clients] == ["instance_0"] * 2
    assert world.states() == ["ready"]
    for client in clients:
        client.body.end()
    assert sorted([await client.task for client in clients]) == [b"0", b"01"]


async def test_what_is_not_loaded_goes_first(make_world: MakeWorld) -> None:
    world = make_world(deployments=THREE, sizes={"a": 1}, ram=2)
    await world.ready()
    assert world.states() == ["ready", "ready", "stopped"]
    world.fleet.scale("a", 2)
    await turns()
    assert world.states() == ["ready", "ready"]


async def test_scaling_what_is_not_loaded_loads_nothing(make_world: MakeWorld) -> None:
    world = make_world()
    assert world.fleet.scale("a", 2) == 0
    world.fleet.ensure("a")
    assert world.fleet.scale("a", 2) == 2
    await turns()
    assert world.loader.loads == []


async def test_kinds_may_be_mixed(make_world: MakeWorld) -> None:
    world = make_world()
    await world.ready()
    world.fleet.scale("a", 2, InstanceKind.PROCESS)
    await turns()
    assert [backend.kind for backend in world.backends()] == ["local", "process"]
    assert world.started == ["instance_1"]
    held = await leases(world, 2)
    assert set(names(held)) == {"instance_0", "instance_1"}
    release(held)


async def test_a_number_that_is_used_again_is_of_its_own_kind(make_world: MakeWorld) -> None:
    """Nothing is known of what it was before, such as the memory that it took."""
    world = make_world()
    await world.ready()
    world.fleet.scale("a", 2)
    await turns()
    world.fleet.scale("a", 1)
    await turns()
    world.setup.sizes["a"] = 1000  # no room any more
    world.fleet.scale("a", 2, InstanceKind.PROCESS)
    await turns()
    assert world.states() == ["ready", "stopped"]
    assert world.fleet.find("instance_1") is world.backends()[1]
    assert world.fleet.find("instance_9") is None


# -- restarting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1])
async def test_a_restart_waits_for_calls_and_keeps_how_it_was_loaded(
    make_world: MakeWorld, index: int
) -> None:
    world = make_world(deployments={"a": Deployment(2)})
    world.fleet.ensure("a")
    await world.manager.load("a", LoadOptions(context_length=512), pin=True, keep_alive=-1.0)
    await turns()
    held = await leases(world, 2)
    backend = world.backends()[index]
    before = world.engine(backend)
    restarting = world.start(world.fleet.restart(backend))
    await turns()
    assert Counter(world.states()) == {"ready": 1, "draining": 1}
    assert not before.closed
    with pytest.raises(ModelConflict):
        await world.fleet.restart(backend)
    release(held)
    await restarting
    assert (world.states(), before.closed) == (["ready"] * 2, True)
    assert world.loader.options == [LoadOptions(context_length=512)] * 3
    assert world.manager.status("a").pinned


async def test_the_only_instance_has_a_stand_in(make_world: MakeWorld) -> None:
    world = make_world()
    await world.ready()
    held = await leases(world, 1)
    (backend,) = world.backends()
    restarting = world.start(world.fleet.restart(backend))
    await turns()
    assert world.states() == ["draining", "ready"]
    more = await leases(world, 1)
    assert names(more) == ["instance_1"]
    release(held)
    await restarting
    await turns()
    assert world.states() == ["ready", "draining"]
    release(more)
    await turns()
    assert world.states() == ["ready"]
    assert world.backends() == [backend]


async def test_no_model_goes_for_a_stand_in(make_world: MakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    world = make_world(ram=2, max_models=2)
    await world.ready("b")
    await world.ready("a")
    await world.fleet.restart(world.backends()[0])
    await turns()
    assert (world.states("a"), world.states("b")) == (["ready"], ["ready"])
    assert world.loader.loads == ["b", "a", "a"]
    assert "without a stand-in" in caplog.text


async def test_a_stand_in_stays_if_the_instance_does_not_come_back(make_world: MakeWorld) -> None:
    world = make_world()
    await world.ready()
    held = await leases(world, 1)
    restarting = world.start(world.fleet.restart(world.backends()[0]))
    await turns()
    world.loader.failures["a"] = ModelLoadError("the file is gone")
    release(held)
    with pytest.raises(ModelLoadError):
        await restarting
    await turns()
    assert world.states() == ["failed", "ready"]
    held = await leases(world, 1)
    assert names(held) == ["instance_1"]
    release(held)


async def test_a_restart_that_is_cancelled_leaves_no_stand_in(make_world: MakeWorld) -> None:
    world = make_world()
    await world.ready()
    held = await leases(world, 1)
    world.loader.go["a"] = asyncio.Event()
    restarting = world.start(world.fleet.restart(world.backends()[0]))
    await turns()
    assert world.states() == ["ready", "starting"]
    restarting.cancel()
    await turns()
    assert world.states() == ["ready"]
    release(held)


async def test_a_replica_does_not_outlive_its_model_by_a_restart(make_world: MakeWorld) -> None:
    world = make_world(deployments={"a": Deployment(2)})
    await world.ready()
    restarting = world.start(world.fleet.restart(world.backends()[1]))
    await world.fleet.unload("a")
    await restarting
    await turns()
    assert world.states() == ["stopped"] * 2


async def test_a_stand_in_that_is_scaled_away_meanwhile(make_world: MakeWorld) -> None:
    world = make_world()
    await world.ready()
    held = await leases(world, 1)
    restarting = world.start(world.fleet.restart(world.backends()[0]))
    await turns()
    world.fleet.scale("a", 1)
    await turns()
    release(held)
    await restarting
    await turns()
    assert world.fleet.scale("a", 2) == 2
    await turns()
    assert world.states() == ["ready"] * 2


async def test_a_rolling_restart_loses_no_call(make_world: MakeWorld) -> None:
    world = make_world(deployments=THREE, grace=0.0)
    await world.ready()
    before = list(world.loader.engines)
    clients = [Client(world) for _ in range(6)]
    await turns()
    for backend in world.backends():
        await world.fleet.restart(backend)
        await turns()
        for client in clients:
            client.body.step()
        await turns()
    assert all(engine.closed for engine in before)
    assert world.states() == ["ready"] * 3
    for client in clients:
        client.body.end()
        answer = await client.task
        assert answer == b"0123456789"[: len(answer)]
        assert len(answer) >= 4
        assert client.failovers.counts["broken"] == 0
    assert sum(client.failovers.counts["resumed"] for client in clients) >= 3


# -- strategies, upstreams, models that come and go ------------------------------------------------


async def test_the_strategy_can_be_changed_at_any_time(make_world: MakeWorld) -> None:
    world = make_world(deployments={"a": Deployment(2)})
    await world.ready()
    held = await leases(world, 4)
    assert names(held) in (["instance_0", "instance_1"] * 2, ["instance_1", "instance_0"] * 2)
    release([lease for lease in held if lease.backend.name == "instance_0"])
    world.fleet.strategy = Strategy.LEAST_CONNECTIONS
    assert world.fleet.strategy is Strategy.LEAST_CONNECTIONS
    more = await leases(world, 2)
    assert names(more) == ["instance_0"] * 2
    release(more)
    release([lease for lease in held if lease.backend.name == "instance_1"])


async def test_a_conversation_goes_where_it_was(make_world: MakeWorld) -> None:
    world = make_world(deployments=THREE, strategy=Strategy.PREFIX_AWARE)
    await world.ready()

    async def ask(text: str) -> str:
        lease = await world.balancer.acquire(call("a", conversation=lambda: text * 1000))
        lease.release()
        return lease.backend.name

    first = {text: await ask(text) for text in "xyz"}
    assert {text: await ask(text) for text in "zyx"} == first


class Remote(StubBackend):
    """Stands in for an upstream."""

    kind = "remote"
    life = ""

    def start(self) -> None:
        self.life += "started "

    def drain(self) -> None:
        self.life += "drained "
        self.state = BackendState.DRAINING

    async def stop(self) -> None:
        self.life += "stopped"


async def test_upstreams_share_the_calls(make_world: MakeWorld) -> None:
    world = make_world(deployments={"a": Deployment(2)})
    await world.ready()
    remote: Any = Remote("up", model="a")
    world.fleet.add_upstream(remote)
    held = await leases(world, 6)
    assert Counter(names(held)) == {"instance_0": 2, "instance_1": 2, "up": 2}
    await world.fleet.remove_upstream(remote)
    assert remote.life == "started drained stopped"
    more = await leases(world, 4)
    assert "up" not in names(more)
    release(held + more)
    assert remote.inflight == 0


async def test_a_model_that_only_an_upstream_has(make_world: MakeWorld) -> None:
    world = make_world()
    remote: Any = Remote("up", model="theirs", limit=1)
    world.fleet.add_upstream(remote)
    held = await leases(world, 1, "theirs")
    waiting = asyncio.create_task(world.balancer.acquire(call("theirs")))
    await turns()
    assert not waiting.done()  # and nothing is loaded for it
    release(held)
    (await waiting).release(Verdict.SUCCESS)
    assert world.loader.loads == []
    await world.fleet.remove_upstream(remote)
    with pytest.raises(UnknownModel):
        await world.balancer.acquire(call("theirs"))


async def test_an_upstream_saves_the_load(make_world: MakeWorld) -> None:
    world = make_world()
    remote: Any = Remote("up", model="a", limit=1)
    world.fleet.add_upstream(remote)
    held = await leases(world, 1)
    assert (names(held), world.loader.loads) == (["up"], [])
    held += await leases(world, 1)  # it is busy
    assert (names(held), world.loader.loads) == (["up", "instance_0"], ["a"])
    release(held)


async def test_a_model_that_is_forgotten(make_world: MakeWorld) -> None:
    world = make_world(deployments=THREE)
    await world.ready()
    held = await leases(world, 3)
    world.fleet.scale("a", 2)
    await turns()
    del world.setup.sizes["a"]
    unloading = world.start(world.fleet.unload("a"))
    await turns()
    world.fleet.forget("a")
    with pytest.raises(UnknownModel):
        await world.balancer.acquire(call("a"))
    release(held)
    await unloading
    await turns()
    assert (world.fleet.models(), world.fleet.statuses()) == ([], [])
    assert [engine.closed for engine in world.loader.engines] == [True] * 3


async def test_a_model_that_is_not_on_disk_is_unknown_until_it_is(make_world: MakeWorld) -> None:
    world = make_world(sizes={})
    with pytest.raises(UnknownModel):
        world.fleet.backends("a")
    world.setup.sizes["a"] = 1
    await world.ready()
    assert world.states() == ["ready"]


async def test_a_stopped_fleet_loads_nothing_more(make_world: MakeWorld) -> None:
    world = make_world(deployments=THREE)
    await world.ready()
    await world.fleet.stop()
    await world.manager.stop()
    await turns()
    assert world.manager.state("a") is ModelState.STOPPED
    assert len(world.loader.loads) == 3


async def test_a_replica_that_cannot_be_loaded_is_tried_again_later(make_world: MakeWorld) -> None:
    world = make_world(deployments={"a": Deployment(2, InstanceKind.LOCAL)})
    await world.ready()
    world.loader.failures["a"] = EngineError("no")
    await crash(world, 1)
    await world.later(1)
    assert world.states() == ["ready", "failed"]
    release(await leases(world, 2))
    del world.loader.failures["a"]
    await world.later(300)
    assert world.states() == ["ready"] * 2


async def test_a_pool_is_made_anew_only_if_its_backends_change(make_world: MakeWorld) -> None:
    world = make_world(deployments={"a": Deployment(2)})
    pool = world.fleet.backends("a")
    await world.ready()
    await crash(world, 1)
    assert world.fleet.backends("a") is pool
    world.fleet.scale("a", 3)
    assert len(world.fleet.backends("a")) == 3


async def test_what_an_upstream_or_the_disk_has_is_taken_up(make_world: MakeWorld) -> None:
    world = make_world(sizes={})
    remote: Any = Remote("up", model="a")
    world.fleet.add_upstream(remote)
    assert world.fleet.backends("a") == (remote,)
    world.setup.sizes["a"] = 1
    world.fleet.changed()
    assert [backend.name for backend in world.fleet.backends("a")] == ["instance_0", "up"]
    remote.model = "b"
    world.fleet.changed()
    assert (world.states("a"), world.fleet.backends("b")) == (["stopped"], (remote,))
    await world.fleet.remove_upstream(remote)


# -- as time goes by -------------------------------------------------------------------------------


async def test_what_is_known_of_a_backend_fades(make_world: MakeWorld) -> None:
    world = make_world(deployments={"a": Deployment(1)})
    await world.ready()
    (backend,) = world.backends()
    backend._clock = world.clock
    backend.first_token(8.0)
    assert backend.ttft == 8.0
    world.clock.now += 10.0
    world.fleet.tick()
    assert backend.ttft == pytest.approx(8.0 / 2.718, rel=0.01)
    assert backend.status().ttft_ewma == 8.0, "for people: it became no faster"


def of_adapter(name: str | None) -> Call:
    return Call("r", Target("a", name, name or "a"), "/x", b"{}", stream=True, wire=WIRE)


async def test_an_adapter_goes_only_to_what_has_it(make_world: MakeWorld) -> None:
    world = make_world()
    await world.ready()
    base, tuned = Remote("base", model="a"), Remote("tuned", model="pirate")
    for upstream in (base, tuned):
        world.fleet.add_upstream(upstream)  # type: ignore[arg-type]
    engine = world.engine(world.backends()[0])
    # Its engine was loaded without adapters.
    assert [each.name for each in world.fleet.backends("a", "pirate")] == ["tuned"]
    engine.info = replace(engine.info, capabilities=frozenset({"adapters"}))
    assert [each.name for each in world.fleet.backends("a", "pirate")] == ["instance_0", "tuned"]
    for _ in range(4):
        lease = await world.balancer.acquire(of_adapter("pirate"))
        assert lease.backend.name in ("instance_0", "tuned")
        lease.release()
    taken = [await world.balancer.acquire(of_adapter(None)) for _ in range(4)]
    assert {lease.backend.name for lease in taken} == {"instance_0", "base"}
    for lease in taken:
        lease.release()


async def test_an_adapter_that_nothing_has_is_refused_by_the_engine(make_world: MakeWorld) -> None:
    """It says why it cannot have it, where a missing backend would only be missing."""
    world = make_world()
    await world.ready()
    assert [each.name for each in world.fleet.backends("a", "pirate")] == ["instance_0"]
