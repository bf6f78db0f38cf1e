"""The bundled model in a faster quantisation than it comes in."""

from __future__ import annotations

from scripts.setup.environment import Environment

REQUANTISE = "from engines.llamacpp.bundled import requantise; requantise()"


def requantise(environment: Environment) -> None:
    """Make the bundled model's Q4_0, once; without it the model is served as it comes."""
    if environment.status_of(REQUANTISE) != 0:
        print(f"the bundled model stays in Q4_1, which is slower: {environment.log} says why", flush=True)
