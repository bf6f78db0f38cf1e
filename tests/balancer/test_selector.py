"""The selector: a policy for each model, of the strategy that is set."""

from __future__ import annotations

from balancer.policies import Strategy
from balancer.selector import MOST_POLICIES, Selector
from support.balancing import StubBackend, call


def test_each_model_has_its_own_turn() -> None:
    selector, ready = Selector(Strategy.ROUND_ROBIN), [StubBackend("a"), StubBackend("b")]
    taken = [selector.select(ready, call(model)) for model in ("m", "n", "m", "n")]
    assert [each.name for each in taken if each] == ["a", "a", "b", "b"]


def test_there_is_an_end_to_the_models_that_are_remembered() -> None:
    """Upstreams choose their names, and clients ask for them."""
    selector, ready = Selector(Strategy.ROUND_ROBIN), [StubBackend("a")]
    for number in range(MOST_POLICIES + 5):
        selector.select(ready, call(f"m{number}"))
    assert len(selector._policies) == MOST_POLICIES
