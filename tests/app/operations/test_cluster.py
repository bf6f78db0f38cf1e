"""An operator's rules without HTTP: the fleet and the manager are real, engines and time are stand-ins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.operations import cluster
from app.operations.cluster import EVERY_INSTANCE, ClusterOperations
from app.operations.errors import (
    RestartFailed,
    TooManyUpstreams,
    UnknownInstance,
    UnknownUpstream,
    UpstreamExists,
    UpstreamNotAllowed,
)
from balancer.backends.upstream_config import Upstream
from balancer.instances import MOST_INSTANCES, Deployment, InstanceKind
from balancer.proxy.guard import Guard
from balancer.scaling import ScalingLimits
from engines.errors import ModelFileNotFound, ModelLoadError, RequestError
from engines.lifecycle.errors import ModelConflict
from engines.models.library import Library
from support.balancing import Setup, StubBackend, World, call, turns

URL = "http://127.0.0.1:9/v1"


class Connected(StubBackend):
    """Stands in for an upstream."""

    def start(self) -> None: ...

    def drain(self) -> None: ...

    async def stop(self) -> None: ...


class Site:
    """A world with three instances of the model "a", and an operator."""

    def __init__(self, base: Path, limits: ScalingLimits | None = None) -> None:
        self.world = World(Setup(deployments={"a": Deployment(3)}))
        library = Library(base, base / "models.yaml")
        library.add_without_file("a")
        self.operations = ClusterOperations(
            self.world.fleet, self.world.manager, library, limits, guard=Guard(), connect=self._connect
        )

    def _connect(self, upstream: Upstream) -> Any:
        backend: Any = Connected(upstream.name, model="theirs")
        self.world.fleet.add_upstream(backend)
        return backend


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    await site.world.stop()


async def test_scaling_up_loads_and_scaling_down_does_not(site: Site) -> None:
    down = site.operations.scale("a", -1)
    await turns()
    assert (down.before, down.instances) == (3, ("instance_0", "instance_1"))
    assert site.world.states() == ["stopped"] * 2
    up = site.operations.scale("a", 2, InstanceKind.PROCESS)
    await turns()
    assert (up.before, len(up.instances)) == (2, 4)
    assert site.world.states() == ["ready"] * 4
    assert [backend.kind for backend in site.world.backends()] == ["local"] * 2 + ["process"] * 2


@pytest.mark.parametrize("change", [-3, MOST_INSTANCES - 2])
async def test_a_number_of_instances_that_cannot_be(site: Site, change: int) -> None:
    with pytest.raises(RequestError) as refused:
        site.operations.scale("a", change)
    assert refused.value.param == "count"
    assert len(site.world.backends()) == 3


async def test_the_autoscalers_limits_bind_operators(tmp_path: Path) -> None:
    site = Site(tmp_path, ScalingLimits(minimum=2, maximum=4))
    for change in (-2, 2):
        with pytest.raises(RequestError, match="AUTO_SCALING would undo it"):
            site.operations.scale("a", change)
    assert len(site.operations.scale("a", 1).instances) == 4
    await site.world.stop()


async def test_what_is_not_here_cannot_be_scaled(site: Site) -> None:
    with pytest.raises(ModelFileNotFound):
        site.operations.scale("theirs", 1)
    await site.operations.add_upstream(Upstream("up", URL))
    with pytest.raises(RequestError, match="only upstreams have theirs") as refused:
        site.operations.scale("theirs", 1)
    assert refused.value.param == "model"


async def test_what_is_loaded_can_be_restarted(site: Site) -> None:
    await site.world.ready()
    site.operations.scale("a", -1)
    await turns()
    restart = site.operations.restart(EVERY_INSTANCE)
    assert restart.instances == ("instance_0", "instance_1")
    with pytest.raises(ModelConflict, match="under way, with instance_0, instance_1"):
        site.operations.restart("instance_1")
    assert [each.instance_id for each in await restart.task] == list(restart.instances)


async def test_what_rests_or_leaves_or_is_not_there_cannot_be_restarted(site: Site) -> None:
    site.world.fleet.ensure("a")
    with pytest.raises(ModelConflict, match="instance_1 is stopped"):
        site.operations.restart("instance_1")
    with pytest.raises(UnknownInstance, match="instance_0, instance_1, instance_2") as unknown:
        site.operations.restart("instance_7")
    assert unknown.value.param == "instance_id"
    await site.world.ready()
    held = [await site.world.balancer.acquire(call("a")) for _ in range(3)]
    site.operations.scale("a", -1)
    with pytest.raises(ModelConflict, match="on its way out"):
        site.operations.restart("instance_2")
    for lease in held:
        lease.release()


async def test_a_restart_that_fails_says_what_became_of_each(site: Site) -> None:
    await site.world.ready()
    held = [await site.world.balancer.acquire(call("a")) for _ in range(3)]
    restart = site.operations.restart(EVERY_INSTANCE)
    await turns()
    site.world.loader.failures["a"] = ModelLoadError("the disk is gone")
    for lease in held:
        lease.release()
    with pytest.raises(RestartFailed, match="instance_0 did not come back: the disk is gone") as failed:
        await restart.task
    left = ["instance_1", "instance_2"]
    assert failed.value.details == {"restarted": [], "failed": ["instance_0"], "untouched": left}
    assert failed.value.retry_after


async def test_upstreams_are_known_by_their_names(site: Site) -> None:
    added = await site.operations.add_upstream(Upstream("up", URL))
    with pytest.raises(UpstreamExists) as exists:
        await site.operations.add_upstream(Upstream("up", "http://127.0.0.2:9/v1"))
    assert exists.value.param == "name"
    assert await site.operations.remove_upstream("up") is added
    with pytest.raises(UnknownUpstream, match=r"upstreams here: none"):
        await site.operations.remove_upstream("up")


async def test_there_is_an_end_to_upstreams(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "MOST_UPSTREAMS", 1)
    await site.operations.add_upstream(Upstream("up", URL))
    with pytest.raises(TooManyUpstreams, match="remove one first"):
        await site.operations.add_upstream(Upstream("again", URL))


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "0xa9fea9fe", "[::ffff:169.254.1.1]"])
async def test_addresses_that_no_upstream_has(site: Site, host: str) -> None:
    with pytest.raises(UpstreamNotAllowed, match="ALLOWED_UPSTREAMS") as refused:
        await site.operations.add_upstream(Upstream("up", f"http://{host}/v1"))
    assert refused.value.param == "url"
    assert not site.world.fleet.upstreams


async def test_an_upstream_whose_name_leads_nowhere_yet(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(*_: object, **options: object) -> list[Any]:
        raise OSError("no such name")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    assert await site.operations.add_upstream(Upstream("up", "http://gpu1/v1"))


async def test_a_stop_ends_a_restart(site: Site) -> None:
    await site.world.ready()
    site.world.loader.go["a"] = asyncio.Event()
    restart = site.operations.restart("instance_0")
    await turns()
    site.operations.stop()
    with pytest.raises(asyncio.CancelledError):
        await restart.task
