"""The descriptor that an engine package gives of itself, without importing what the engine is built on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from engines.base import Resident
from engines.load_spec import LoadSpec
from engines.machine.footprint import Footprint
from engines.machine.platform import Facts
from engines.models.convert.plan import Quantizer
from engines.models.formats import ModelFormat
from engines.progress import Progress


class Suitability(IntEnum):
    """The degree to which a machine suits an engine. "auto" takes the most suitable that can run it."""

    ON_REQUEST = 0
    """Never chosen by "auto"."""
    POOR = 1
    """It runs, but was made for other devices and is slow to start or to compute."""
    FAIR = 2
    """It runs, but was made for other devices."""
    GOOD = 3
    """It runs well on any machine."""
    BEST = 4
    """It is made for this machine's accelerator."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether an engine can run on a machine; ``reason`` says why, or what is missing and how to get it.

    ``suitability`` counts as if the engine could run: the order in which people are told of engines
    depends on it too.
    """

    can_run: bool
    reason: str
    suitability: Suitability


class Estimate(Protocol):
    """The memory that a load will take, from file headers alone: quick.

    ``weights_loaded``: another engine of the same model has the weights, and this one would share them.
    Raises `ModelLoadError` if the model cannot be loaded at all.
    """

    def __call__(self, spec: LoadSpec, machine: Facts, *, weights_loaded: bool) -> Footprint: ...


Load = Callable[[LoadSpec, Progress | None], Awaitable[Resident]]
"""Loads a model. Raises `ModelLoadError`; cancelling gives the load up and leaves nothing behind."""


def _anything_goes(spec: LoadSpec) -> None:
    """No settings that could be told to be wrong before the load."""


def _no_packages() -> Mapping[str, str]:
    return {}


def _no_idle_gpu(facts: Facts) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDescriptor:
    """An engine: its names, what it can do, and how it is judged, measured and loaded.

    ``name`` is what settings, the catalog and requests write; ``label`` is for people. ``formats`` are those
    of the models that it loads; an engine without any needs no model file. ``capabilities`` (of those of
    `EngineInfo`) are all that some model of it may have; ``help`` says, for a capability, what to do about a
    model that lacks it nevertheless. ``request_fields`` are fields of requests that not every engine can
    meet, and that this one meets for every model.

    ``install`` names, for people, what they install. ``packages`` looks for the packages that the engine is
    built on: the import names of those that are there, with their versions ("" if unknown); it imports none.

    ``idle_gpu`` says that the engine's build leaves a GPU of the machine idle, and what to do about it;
    nothing if it does not. It may import the packages.

    ``adapts``: its models that generate text take LoRA adapters at any time, not only if they were loaded
    for that. ``shares_weights``: engines of one model in one process have its weights in memory once.
    ``brings_templates``: it has chat templates of its own for models without one. ``check`` raises
    `ModelLoadError` for settings that no load can succeed with: quick, as it comes before each. ``quantizer``
    makes the files that this engine needs for another quantisation; without one the engine is told of the
    quantisation when it loads.

    ``opener`` is called once for each `EngineRegistry`: what the engines of one process share lives in the
    function that it gives. Only that function imports the engine's packages.
    """

    name: str
    label: str
    judge: Callable[[Facts], Judgement]
    estimate: Estimate
    opener: Callable[[], Load]
    capabilities: frozenset[str]
    formats: frozenset[ModelFormat] = frozenset()
    install: str = ""
    help: Mapping[str, str] = field(default_factory=dict)
    request_fields: frozenset[str] = frozenset()
    packages: Callable[[], Mapping[str, str]] = _no_packages
    idle_gpu: Callable[[Facts], str] = _no_idle_gpu
    adapts: bool = False
    shares_weights: bool = False
    brings_templates: bool = False
    check: Callable[[LoadSpec], None] = _anything_goes
    quantizer: Quantizer | None = None
