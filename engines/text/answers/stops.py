"""Stop strings in text that arrives in pieces."""

from __future__ import annotations

from collections import deque


class StopMatcher:
    """Passes text on up to the first stop string, and never any part of that stop string.

    The stop string that is complete first wins (of several that end on the same character, the
    longest), as generation ends there; so the result does not depend on how the text was split.
    Empty stop strings match nothing.

    One Aho-Corasick automaton (Aho & Corasick 1975) for all stop strings: each character costs
    amortised O(1) however many there are and however they repeat themselves, and the depth of the
    current node *is* the length of the suffix that may still become a stop string.
    """

    __slots__ = (
        "_children",
        "_depth",
        "_fallback",
        "_first",
        "_held",
        "_keeps",
        "_match",
        "_node",
        "found",
    )

    def __init__(self, stops: tuple[str, ...], *, keeps: bool = False) -> None:
        """``keeps``: the stop string that was found is passed on too, whole. ``found`` is that string."""
        self._keeps = keeps
        self._children: list[dict[str, int]] = [{}]
        self._fallback = [0]
        self._depth = [0]
        self._match = [0]  # length of the longest stop string that ends in this node, or 0
        for stop in stops:
            self._add(stop)
        self._link()
        self._first = frozenset(self._children[0])
        self._node = 0
        self._held = ""
        self.found = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that is now safe to release, and whether a stop string was found.

        What comes after a stop string, in this call or a later one, is discarded.
        """
        if self.found:
            return "", True
        if not self._node and self._first.isdisjoint(text):
            return text, False
        node = self._node
        for index, char in enumerate(text, 1):
            node = self._step(node, char)
            if self._match[node]:
                return self._stop(text, index, self._match[node])
        self._node = node
        text = self._held + text
        safe = len(text) - self._depth[node]
        self._held = text[safe:]
        return text[:safe], False

    def flush(self) -> str:
        """Generation ended without a stop string: the text that was held back."""
        held, self._held, self._node = self._held, "", 0
        return held

    def _stop(self, text: str, end: int, length: int) -> tuple[str, bool]:
        """A stop string of this ``length`` ends at ``end`` of ``text``; it may have begun before."""
        begun, self._held = self._held, ""
        whole, end = begun + text, len(begun) + end
        self.found = whole[end - length : end]
        return whole[: end if self._keeps else end - length], True

    def _add(self, stop: str) -> None:
        node = 0
        for char in stop:
            child = self._children[node].get(char)
            if child is None:
                child = self._children[node][char] = len(self._children)
                self._children.append({})
                self._fallback.append(0)
                self._depth.append(self._depth[node] + 1)
                self._match.append(0)
            node = child
        self._match[node] = self._depth[node]

    def _link(self) -> None:
        """Breadth first, so that a node's fallback, which is shallower, is finished before it."""
        queue = deque(self._children[0].values())
        while queue:
            node = queue.popleft()
            for char, child in self._children[node].items():
                fallback = self._step(self._fallback[node], char)
                self._fallback[child] = fallback
                self._match[child] = self._match[child] or self._match[fallback]
                queue.append(child)

    def _step(self, node: int, char: str) -> int:
        while node and char not in self._children[node]:
            node = self._fallback[node]
        return self._children[node].get(char, 0)
