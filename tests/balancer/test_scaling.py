"""Instances follow the calls, as the autoscaler decides; time is stood in for."""

from __future__ import annotations

from collections.abc import Callable

from balancer.lease import Lease
from balancer.scaling import Scaling, ScalingLimits
from support.balancing import World, call, turns


async def grow(world: World, scaling: Scaling, seconds: int) -> None:
    for _ in range(seconds):
        scaling.tick()
        world.clock.now += 1.0
    await turns(40)


def scaling_of(world: World, **limits: int) -> Scaling:
    return Scaling(world.fleet, world.manager, world.balancer, ScalingLimits(**limits), world.clock)


async def calls(world: World, count: int, model: str = "a") -> list[Lease]:
    return [await world.balancer.acquire(call(model)) for _ in range(count)]


async def test_instances_follow_the_calls(make_world: Callable[..., World]) -> None:
    world = make_world()
    scaling = scaling_of(world, target=2, minimum=1, maximum=3)
    leases = await calls(world, 4)
    await grow(world, scaling, 30)
    assert world.states() == ["ready"]
    await grow(world, scaling, 1)
    assert world.states() == ["ready", "ready"]
    leases += await calls(world, 9)
    await grow(world, scaling, 31)
    assert world.states() == ["ready"] * 3  # the maximum
    for lease in leases:
        lease.release()
    await grow(world, scaling, 301)
    assert world.states() == ["ready"]
    (_, first), (_, second), (ago, third) = scaling.history("a")
    assert [first.instances, second.instances, third.instances] == [2, 3, 1]
    assert "4 requests ongoing" in first.reason
    assert ago == world.clock.now - third.at


async def test_models_that_are_not_loaded_are_left_alone(make_world: Callable[..., World]) -> None:
    world = make_world(sizes={"a": 1, "b": 1})
    scaling = scaling_of(world, target=1, minimum=2, maximum=3)
    world.fleet.ensure("b")
    await grow(world, scaling, 1)
    assert len(world.fleet.instances("b")) == 1
    await world.ready("b")
    await grow(world, scaling, 1)
    assert len(world.fleet.instances("b")) == 2
    assert scaling.history("b")
    await world.fleet.unload("b")
    await grow(world, scaling, 1)
    assert scaling.history("b") == []


async def test_what_was_decided_is_still_known_while_one_instance_is_restarted(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    scaling = scaling_of(world, target=1, minimum=2, maximum=3)
    await world.ready()
    await grow(world, scaling, 1)
    lease = (await calls(world, 1))[0]
    first = world.backends()[0]
    world.engine(first).healthy = False
    await world.later(1)
    assert world.states() == ["failed", "ready"]
    await grow(world, scaling, 1)
    assert scaling.history("a")
    lease.release()


async def test_waiting_calls_count(make_world: Callable[..., World]) -> None:
    world = make_world(limits={"concurrent": 1})
    scaling = scaling_of(world, target=1, minimum=1, maximum=9)
    lease = (await calls(world, 1))[0]
    waiting = [world.start(world.balancer.acquire(call("a"))) for _ in range(2)]
    await turns()
    await grow(world, scaling, 31)
    assert len(world.fleet.instances("a")) == 3
    for task in waiting:
        task.cancel()
    await turns()
    lease.release()
