"""Which instances there are, and how the manager's loader sees them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer import instances as module
from balancer.instances import Instance, InstanceKind, InstanceLoader, Instances, device_of
from engines.errors import ModelFileNotFound
from engines.lifecycle.states import DEFAULT_OPTIONS, Retention
from engines.machine.footprint import Footprint
from engines.models.catalog import FOREVER
from support.balancing import StubEngine, StubLoader

LOCAL, PROCESS = InstanceKind.LOCAL, InstanceKind.PROCESS


def test_the_first_instance_has_the_models_name() -> None:
    instances = Instances()
    first, second = instances.add("a", LOCAL), instances.add("a", LOCAL)
    assert (first.key, first.is_replica, first.id) == ("a", False, "instance_0")
    assert (second.is_replica, second.id) == (True, "instance_1")
    assert instances.get(second.key) is second
    assert instances.of("a") == list(instances) == [first, second]
    assert instances.of("b") == []


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.integers(0, 9)), max_size=30))
def test_numbers_are_the_smallest_that_are_free(steps: list[tuple[bool, str, int]]) -> None:
    instances = Instances()
    for adds, model, pick in steps:
        present = list(instances)
        taken = {instance.number for instance in present}
        if adds:
            added = instances.add(model, LOCAL)
            assert added.number == min(set(range(len(taken) + 1)) - taken)
        elif present:
            instances.remove(present[pick % len(present)])
    keys = [instance.key for instance in instances]
    assert len(keys) == len(set(keys))


def test_instances_that_compute_at_once_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 8)
    instances = Instances()
    keys = [instances.add("a", LOCAL).key for _ in range(3)]
    alone = instances.add("b", LOCAL)
    assert [instances.threads(key) for key in keys] == [2, 2, 2]
    assert instances.threads(alone.key) is None
    assert instances.threads("nobody") is None


class Models(StubLoader):
    def __init__(self) -> None:
        super().__init__({"a": 4})
        self.retentions["a"] = Retention(pin=True, keep_alive=5.0)
        self.shared: list[bool] = []

    def estimate(self, name: str, options: Any, *, beside: bool = False) -> Footprint:
        self.shared.append(beside)
        return super().estimate(name, options)

    def measured(self, name: str, engine: object, *, beside: bool = False) -> Footprint | None:
        self.shared.append(beside)
        return None


def report(phase: str, progress: float) -> None:
    pass


async def test_replicas_are_loaded_as_their_model() -> None:
    models, instances, started = Models(), Instances(), list[Instance]()

    async def start(instance: Instance, options: Any, report: Any) -> StubEngine:
        started.append(instance)
        return StubEngine(instance.model)

    loader = InstanceLoader(models, instances, start)  # type: ignore[arg-type]
    first, local, child = (instances.add("a", kind) for kind in (LOCAL, LOCAL, PROCESS))
    assert loader.retention("a") == Retention(pin=True, keep_alive=5.0)
    assert loader.retention(local.key) == Retention(keep_alive=FOREVER, replica_of="a")
    for instance in (first, local, child):
        loader.estimate(instance.key, DEFAULT_OPTIONS)
        loader.measured(instance.key, await loader.load(instance.key, DEFAULT_OPTIONS, report))
    assert models.loads == ["a", "a"]
    assert started == [child]
    # Weights are shared with the first engine of this process, and by no other process.
    assert models.shared == [False, False, True, True, False, False]
    with pytest.raises(ModelFileNotFound):
        loader.retention("other")


@pytest.mark.parametrize(
    ("groups", "expected"),
    [("", [None, None]), ("0;1", ["0", "1", "0"]), (" 0,1 ; 2,3 ;", ["0,1", "2,3", "0,1"])],
)
def test_devices_go_round(groups: str, expected: list[str | None]) -> None:
    assert [device_of(number, groups) for number in range(len(expected))] == expected
