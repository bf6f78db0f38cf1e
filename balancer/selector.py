"""The selector: the strategy that is set, and a policy of that strategy for every model."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.backends.base import Backend
from balancer.call import Call
from balancer.policies import Policy, Strategy, make_policy
from balancer.prefixes import prefix_blocks

# Upstreams choose the names of their models, so there must be an end to what is remembered of them.
MOST_POLICIES = 256


class Selector:
    """Selects a backend for each call by the strategy. A new strategy begins with nothing remembered."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._policies: dict[str, Policy] = {}

    @property
    def strategy(self) -> Strategy:
        return self._strategy

    @strategy.setter
    def strategy(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._policies.clear()

    def select(self, ready: Sequence[Backend], call: Call) -> Backend | None:
        """One of the ``ready`` backends of the call's model; None if there are none."""
        policy = self._policies.get(call.model)
        if policy is None:
            if len(self._policies) >= MOST_POLICIES:
                del self._policies[next(iter(self._policies))]
            policy = self._policies[call.model] = make_policy(self._strategy)
        prefix: tuple[int, ...] = ()
        if self._strategy is Strategy.PREFIX_AWARE and call.conversation is not None:
            prefix = prefix_blocks(call.conversation())
        return policy.select(ready, prefix)

    def forget(self, model: str) -> None:
        """Drop what the policy of ``model`` remembers."""
        self._policies.pop(model, None)
