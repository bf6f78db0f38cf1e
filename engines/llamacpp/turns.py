"""Turns: a forward pass computes with one LoRA adapter, so the adapters of a step's sequences take turns."""

from __future__ import annotations

from engines.llamacpp.adapters import LlamaAdapter
from engines.llamacpp.work import Work


def by_adapter(work: list[Work], first: LlamaAdapter | None) -> list[list[Work]]:
    """The work of each adapter, in its order; that of ``first``, which needs no turning to, before others."""
    groups: dict[LlamaAdapter | None, list[Work]] = {}
    for item in work:
        groups.setdefault(item.sequence.adapter, []).append(item)
    return sorted(groups.values(), key=lambda group: group[0].sequence.adapter is not first)
