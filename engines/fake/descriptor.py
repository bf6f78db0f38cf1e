"""The fake engine's descriptor: it needs no model and no machine, and is used only where asked for."""

from __future__ import annotations

from engines.base import Resident
from engines.descriptor import EngineDescriptor, Judgement, Load, Suitability
from engines.fake.abilities import CAPABILITIES
from engines.load_spec import LoadSpec
from engines.machine.footprint import Footprint
from engines.machine.platform import Facts
from engines.progress import Progress

NAME = "fake"


def _judge(facts: Facts) -> Judgement:
    return Judgement(True, "it was asked for; it makes text up", Suitability.ON_REQUEST)


def _estimate(spec: LoadSpec, machine: Facts, *, weights_loaded: bool) -> Footprint:
    return Footprint()


def _opener() -> Load:
    async def load(spec: LoadSpec, progress: Progress | None) -> Resident:
        from engines.fake.engine import FakeEngine

        return FakeEngine(spec.name, context_length=spec.context_length or 8192)

    return load


DESCRIPTOR = EngineDescriptor(
    name=NAME,
    label="the fake engine",
    capabilities=CAPABILITIES,
    request_fields=frozenset({"prompt_logprobs"}),
    brings_templates=True,
    judge=_judge,
    estimate=_estimate,
    opener=_opener,
)
